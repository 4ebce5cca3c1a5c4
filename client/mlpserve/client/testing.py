"""An in-process server for the tests of programs that call Predict.

    with FakeServer() as server, Client(server.target) as client:
        server.answer_labels([7, 3])
        assert list(client.predict(images).labels) == [7, 3]
        server.fail("UNAVAILABLE", "busy", times=2)  # which the client tries again

It speaks the real wire contract over a real connection on the loopback interface. With pytest, the
fixture ``mlpserve_server`` is one; nothing has to be imported for it.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any, Final, Self

import grpc
import numpy as np
import numpy.typing as npt

from mlpserve.client.fake_model import DTYPES, AnyNetwork, FakeModel
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

__all__ = ["AnyNetwork", "FakeServer", "ReceivedCall"]

_THREADS: Final = 32
_LIMITS: Final = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
_MS_PER_S: Final = 1000
_LOOK_S: Final = 0.1
_HEALTH: Final = "grpc.health.v1.Health"
_SERVING: Final = b"\x08\x01"  # as a HealthCheckResponse is encoded
_Request = (
    prediction_pb2.PredictRequest
    | prediction_pb2.PredictStreamRequest
    | prediction_pb2.ExplainRequest
)


@dataclass(frozen=True, eq=False)
class ReceivedCall:
    """A call that a ``FakeServer`` received; each batch of a stream is one.

    Attributes:
        method: ``Predict``, ``PredictStream``, ``Explain``, ``GetModel`` or ``ListModels``.
        model: The model that was asked for; empty for the only one.
        version: The version that was asked for; 0 for none.
        label: The label that was asked for; empty for none.
        images: (N, D) uint8 or float32; empty where the call has none.
        metadata: What was sent along, by its key in lower case.
    """

    method: str
    model: str
    version: int
    label: str
    images: npt.NDArray[Any]
    metadata: dict[str, str | bytes]


class FakeServer(FakeModel):
    """Serves one version of one model, and does what a test asks of it. Safe to use from threads.

    It starts when it is made. Use it as a context manager, or call ``stop``.

    Args:
        network: What answers. Without one, a network of random weights that are always the same.
        model: The model's name.
        version: The version's number.
        class_labels: What the classes are called; as many as the network has.
        input_shape: The shape of one image. Without it, images of any size are answered.

    Attributes:
        target: What a client is to be given.
        calls: The calls that came, in their order.
        ood_threshold: The out-of-distribution score above which an image does not look like what
            the model learned from.
    """

    def __init__(
        self,
        network: AnyNetwork | None = None,
        *,
        model: str = "digits",
        version: int = 1,
        class_labels: Sequence[str] = tuple("0123456789"),
        input_shape: Sequence[int] = (),
    ) -> None:
        super().__init__(
            network,
            model=model,
            version=version,
            class_labels=class_labels,
            input_shape=input_shape,
        )
        self.calls: list[ReceivedCall] = []
        self._lock = Lock()
        self._failures: deque[tuple[grpc.StatusCode, str, float | None]] = deque()
        self._delay_s = 0.0
        self._stopped = Event()
        self._server: grpc.Server
        self.target = "127.0.0.1:0"
        self.start()

    def __enter__(self) -> Self:
        """Return the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.stop()

    def start(self) -> None:
        """Start again, at the same target, after ``stop``."""
        self._stopped = Event()
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), options=_LIMITS)
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(_Servicer(self), self._server)
        self._server.add_generic_rpc_handlers([_health_handlers(self._stopped)])
        self.target = f"127.0.0.1:{self._server.add_insecure_port(self.target)}"
        self._server.start()

    def stop(self) -> None:
        """End all calls, and answer no more."""
        self._stopped.set()
        self._server.stop(None).wait()

    def fail(
        self,
        status: grpc.StatusCode | str,
        message: str = "a failure that the test wants",
        *,
        times: int = 1,
        retry_after_s: float | None = None,
    ) -> None:
        """Refuse the next calls, after those that are to be refused already.

        Args:
            status: The status, or its name: ``UNAVAILABLE``.
            message: The details.
            times: How many calls, attempts of one call included.
            retry_after_s: When the caller is told to try again; None to tell nothing.
        """
        code = grpc.StatusCode[status] if isinstance(status, str) else status
        with self._lock:
            self._failures.extend([(code, message, retry_after_s)] * times)

    def delay(self, duration_s: float) -> None:
        """Wait so long before each answer from now on."""
        self._delay_s = duration_s

    def reset(self) -> None:
        """Forget calls, answers, failures and the delay: be as new."""
        with self._lock:
            self.calls.clear()
            self._failures.clear()
        self._delay_s = 0.0
        self.forget_answers()

    def receive(self, call: ReceivedCall, context: grpc.ServicerContext) -> None:
        """Take note of a call, wait, and refuse it, as the test wants it."""
        with self._lock:
            self.calls.append(call)
            failure = self._failures.popleft() if self._failures else None
        if self._delay_s:
            self._stopped.wait(self._delay_s)
        if failure is not None:
            code, message, retry_after_s = failure
            if retry_after_s is not None:
                pushback = str(round(retry_after_s * _MS_PER_S))
                context.set_trailing_metadata(((_PUSHBACK_KEY, pushback),))
            context.abort(code, message)
        if call.model not in ("", self.model):
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"model_name: model {call.model!r} is not served; served: {self.model}",
            )
        if call.version not in (0, self.version):
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"model_version: version {call.version} of model {self.model!r} is not served; "
                f"served: {self.version}",
            )


class _Servicer(prediction_pb2_grpc.PredictionServiceServicer):
    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake

    def Predict(
        self, request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        return prediction_pb2.PredictResponse(**self._answer("Predict", request, context))

    def PredictStream(
        self,
        request_iterator: Iterator[prediction_pb2.PredictStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[prediction_pb2.PredictStreamResponse]:
        for request in request_iterator:
            answer = self._answer("PredictStream", request, context)
            yield prediction_pb2.PredictStreamResponse(**answer)

    def Explain(
        self, request: prediction_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.ExplainResponse:
        answer = self._answer("Explain", request, context)
        images = _images(request.images, context, self._fake.input_shape)
        labels = np.frombuffer(answer["labels"], "<i4")
        wanted = (
            np.frombuffer(request.classes, "<i4") if request.classes else np.full(len(images), -1)
        )
        classes = np.where(wanted < 0, labels, wanted)
        if len(wanted) != len(images) or classes.max() >= len(self._fake.class_labels):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"classes: expected {len(images)} indices below {len(self._fake.class_labels)}, "
                f"got {wanted.tolist()[:10]}",
            )
        attributions, logits, baseline_logits = self._fake.explanations(images, classes)
        return prediction_pb2.ExplainResponse(
            **answer,
            attributions=attributions.astype("<f4").tobytes(),
            classes=classes.astype("<i4").tobytes(),
            logits=logits.astype("<f4").tobytes(),
            baseline_logits=baseline_logits.astype("<f4").tobytes(),
        )

    def GetModel(
        self, request: prediction_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.GetModelResponse:
        named = request.model_name, request.model_version, request.model_label
        self._fake.receive(_received("GetModel", named, context), context)
        return prediction_pb2.GetModelResponse(model=self._fake.description())

    def ListModels(
        self,
        request: prediction_pb2.ListModelsRequest,  # noqa: ARG002 - says nothing
        context: grpc.ServicerContext,
    ) -> prediction_pb2.ListModelsResponse:
        self._fake.receive(_received("ListModels", ("", 0, ""), context), context)
        return prediction_pb2.ListModelsResponse(models=[self._fake.description()])

    def _answer(
        self, method: str, request: _Request, context: grpc.ServicerContext
    ) -> dict[str, Any]:
        images = _images(request.images, context, self._fake.input_shape)
        named = request.model_name, request.model_version, request.model_label
        self._fake.receive(_received(method, named, context, images), context)
        found = self._fake.probabilities(images)
        scores: dict[str, bytes] = {}
        if not isinstance(request, prediction_pb2.ExplainRequest) and request.with_ood_scores:
            scores = {"ood_scores": self._fake.ood_scores(len(images))}
        return {
            "model_name": self._fake.model,
            "model_version": self._fake.version,
            "probabilities": found.astype("<f4").tobytes(),
            "labels": found.argmax(axis=1).astype("<i4").tobytes(),
            "timings": prediction_pb2.Timings() if request.with_timings else None,
            **scores,
        }


def _images(
    batch: prediction_pb2.ImageBatch, context: grpc.ServicerContext, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Return the (N, D) images of a request, or refuse it."""
    dtype = DTYPES.get(batch.data_type)
    if dtype is None:
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"images.data_type: expected uint8 or float32, got {batch.data_type}",
        )
    size, of_one_value = len(batch.data), batch.count * dtype.itemsize
    values = math.prod(shape) if shape else size // max(of_one_value, 1)
    if not batch.count or not values or size != values * of_one_value:
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"images.data: expected {batch.count} images of {shape or 'one size'} in {dtype}, "
            f"got {size} bytes",
        )
    return np.frombuffer(batch.data, dtype).reshape(batch.count, -1)


def _received(
    method: str,
    named: tuple[str, int, str],
    context: grpc.ServicerContext,
    images: npt.NDArray[Any] | None = None,
) -> ReceivedCall:
    none = np.empty((0, 0), np.uint8)
    metadata = dict(context.invocation_metadata())
    return ReceivedCall(method, *named, none if images is None else images, metadata)


def _health_handlers(stopped: Event) -> grpc.GenericRpcHandler:
    """Return a health service that says that all is well; by hand, for want of its package."""

    def check(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        return _SERVING

    def watch(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield _SERVING
        while context.is_active() and not stopped.wait(_LOOK_S):
            pass

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Check": grpc.unary_unary_rpc_method_handler(check),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
    }
    return grpc.method_handlers_generic_handler(_HEALTH, handlers)
