"""Health and reflection: grpcio's own services, kept from harming the calls that matter."""

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any, Final

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mlpserve.oip import inference_pb2
from mlpserve.server.grpc_api.servicer import handling
from mlpserve.server.security.admission import CallLimit
from mlpserve.server.settings.config import MAX_REFLECTION_CALLS
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.v1 import model_management_pb2, prediction_pb2

_REFLECTED: Final = (
    health_pb2.DESCRIPTOR,
    inference_pb2.DESCRIPTOR,  # in a pool of its own, of which reflection would not know
    model_management_pb2.DESCRIPTOR,
    prediction_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)


class HealthService(health.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1 whose watches can be ended; they hold no thread.

    A watch has no end of its own. Left open, each would keep a server that stops waiting for it.
    """

    def __init__(self) -> None:
        self._watches: set[Any] = set()
        self._watches_lock = Lock()
        super().__init__(experimental_non_blocking=True)

    def Watch(
        self,
        request: Any,  # noqa: ANN401 - as the class above has it
        context: grpc.ServicerContext,
        send_response_callback: Any = None,  # noqa: ANN401
    ) -> None:
        """Tell the caller each change of a service's health."""
        with self._watches_lock:
            self._watches.add(send_response_callback)
        context.add_callback(lambda: self._watches.discard(send_response_callback))
        super().Watch(request, context, send_response_callback)

    def stop(self) -> None:
        """Tell all watches that nothing is served any more, and end them."""
        self.enter_graceful_shutdown()
        with self._watches_lock:
            for send_response in list(self._watches):
                send_response(None)  # gRPC's sign that there are no more responses


class ReflectionService(reflection.ReflectionServicer):  # type: ignore[misc]
    """Server reflection of which only a few calls may be open: each holds a worker thread."""

    def __init__(self, service_names: tuple[str, ...], recorder: Recorder) -> None:
        super().__init__(service_names, _pool_of(_REFLECTED))
        self._recorder = recorder
        self._limit = CallLimit(MAX_REFLECTION_CALLS, "reflection: the most calls")

    def ServerReflectionInfo(
        self,
        request_iterator: Iterator[Any],
        context: grpc.ServicerContext,
    ) -> Iterator[Any]:
        """Answer questions about the contract."""
        with handling(self._recorder, "ServerReflectionInfo", context), self._limit:
            yield from super().ServerReflectionInfo(request_iterator, context)


def _pool_of(files: Iterable[Any]) -> DescriptorPool:
    """Return a pool of files from several pools, with all that they need."""
    pool = DescriptorPool()
    added: set[str] = set()

    def add(file: Any) -> None:  # noqa: ANN401 - of protobuf's two kinds of descriptors
        if file.name not in added:
            added.add(file.name)
            for needed in file.dependencies:
                add(needed)
            described = FileDescriptorProto()
            file.CopyToProto(described)
            pool.AddSerializedFile(described.SerializeToString())

    for each in files:
        add(each)
    return pool
