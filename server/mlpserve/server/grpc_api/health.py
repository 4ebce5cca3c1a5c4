"""Health and reflection: grpcio's own services, kept from harming the calls that matter."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import RLock
from typing import Any, Final

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mlpserve.oip import inference_pb2
from mlpserve.server.grpc_api.arrival import NO_REQUEST, Send
from mlpserve.server.grpc_api.servicer import handling
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.security.admission import CallLimit
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.v1 import model_management_pb2, prediction_pb2

# Healthy as long as anybody answers, with or without a model: what is to be restarted otherwise.
LIVENESS: Final = "liveness"
# Each takes some 20 kB, nearly all of it in gRPC. A client that balances by health has one on each
# connection; one connection may have half of all, and then there is one left for each other.
WATCHES_PER_CONNECTION: Final = 2
_TOO_MANY_WATCHES: Final = "watches: the most at once is {}, and no caller has half"
_Status: Final = health_pb2.HealthCheckResponse
_REFLECTED: Final = (
    health_pb2.DESCRIPTOR,
    inference_pb2.DESCRIPTOR,  # in a pool of its own, of which reflection would not know
    model_management_pb2.DESCRIPTOR,
    prediction_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)


class HealthService:
    """grpc.health.v1, no call of which holds or awaits a thread. Safe to use from many threads.

    Args:
        executor: Runs the handlers.
        sender: Returns what sends the responses of a watch; takes the call and grpcio's own sender.
        max_connections: Of the process; there may be twice as many watches.
    """

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        sender: Callable[[grpc.ServicerContext, Send], Send],
        *,
        max_connections: int,
    ) -> None:
        self._executor = executor
        self._sender = sender
        self._lock = RLock()
        self._statuses = {"": _Status.SERVING, LIVENESS: _Status.SERVING}
        self._watches: dict[Send, str] = {}  # the services that they are for
        self._share = FairShare(WATCHES_PER_CONNECTION * max_connections)
        self._is_over = False

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server calls. Requests are streams, see ``ArrivalExecutor``."""
        # Partials, because grpcio looks for attributes of theirs.
        check: Any = partial(self._check)
        watch: Any = partial(self._watch)
        check.experimental_thread_pool = watch.experimental_thread_pool = self._executor
        watch.experimental_non_blocking = True
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Check": grpc.stream_unary_rpc_method_handler(check),
                "Watch": grpc.stream_stream_rpc_method_handler(watch),
            },
        )

    def set(self, service: str, status: int) -> None:
        """Set the health of a service, and tell whoever watches it."""
        with self._lock:
            if self._is_over:
                return
            self._statuses[service] = status
            for send, watched in self._watches.items():
                if watched == service:
                    send(_response(status))

    def stop(self) -> None:
        """Tell all watches that nothing is served any more, and end them.

        A watch has no end of its own. Left open, each would keep a server that stops waiting.
        """
        with self._lock:
            for service in self._statuses:
                self.set(service, _Status.NOT_SERVING)
            self._is_over = True
            for send in self._watches:
                send(None)

    def _check(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        service = _service_of(requests, context)
        with self._lock:
            status = self._statuses.get(service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return b""
        return _response(status)

    def _watch(
        self, requests: Iterator[bytes], context: grpc.ServicerContext, send_response: Send
    ) -> None:
        service, caller = _service_of(requests, context), context.peer()
        send = self._sender(context, send_response)
        with self._lock:
            if not self._share.is_free(caller, 1):
                # Client-side health checking takes the server for healthy then. With any other
                # status it calls none that has too many watches. Source: gRPC proposal A17.
                code = grpc.StatusCode.UNIMPLEMENTED
                context.abort(code, _TOO_MANY_WATCHES.format(self._share.most))
            if context.add_callback(lambda: self._unwatch(send, caller)):
                self._share.take(caller, 1)
                self._watches[send] = service
                send(_response(self._statuses.get(service, _Status.SERVICE_UNKNOWN)))
            if self._is_over:
                send(None)

    def _unwatch(self, send: Send, caller: str) -> None:
        with self._lock:
            del self._watches[send]
            self._share.give_back(caller, 1)


def _service_of(requests: Iterator[bytes], context: grpc.ServicerContext) -> str:
    data = next(requests, None)
    if data is None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, NO_REQUEST)
    try:
        service: str = health_pb2.HealthCheckRequest.FromString(data).service
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a HealthCheckRequest")
    return service


def _response(status: int) -> bytes:
    written: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return written


class ReflectionService(reflection.ReflectionServicer):  # type: ignore[misc]
    """Server reflection of which only a few calls may be open: each holds a worker thread."""

    def __init__(
        self, service_names: tuple[str, ...], recorder: Recorder, *, max_calls: int
    ) -> None:
        super().__init__(service_names, _pool_of(_REFLECTED))
        self._recorder = recorder
        self._limit = CallLimit(max_calls, "reflection: the most calls")

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
