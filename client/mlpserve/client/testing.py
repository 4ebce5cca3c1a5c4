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
from typing import Any, Final, Protocol, Self

import grpc
import numpy as np
import numpy.typing as npt

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

_THREADS: Final = 32
_MAX_IMAGES: Final = 8192
_LIMITS: Final = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
_MS_PER_S: Final = 1000
_TINY: Final = np.float32(1e-6)
_LOOK_S: Final = 0.1
_HEALTH: Final = "grpc.health.v1.Health"
_SERVING: Final = b"\x08\x01"  # as a HealthCheckResponse is encoded
_DTYPES: Final[dict[prediction_pb2.DataType, np.dtype[Any]]] = {
    prediction_pb2.DATA_TYPE_UINT8: np.dtype(np.uint8),
    prediction_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
}
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


class AnyNetwork(Protocol):
    """What can answer, as ``mlpserve.model.network.Network`` can."""

    def probabilities(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the (N, K) probabilities of (N, D) images, whose values are from 0 to 1."""


class FakeServer:
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
        self.calls: list[ReceivedCall] = []
        self.class_labels = tuple(class_labels)
        self.model, self.version = model, version
        self.input_shape = tuple(input_shape)
        self._network = network
        self._lock = Lock()
        self._fixed: npt.NDArray[np.float32] | None = None
        self._ood_scores = np.zeros(1, np.float32)
        self.ood_threshold = 1.0
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

    def answer_labels(self, labels: Sequence[int]) -> None:
        """Answer with these labels from now on, each with probability 1.

        Args:
            labels: Of the images of a request, in their order; where there are more images, from
                the first label again.
        """
        self.answer_probabilities(np.eye(len(self.class_labels))[list(labels)])

    def answer_probabilities(self, probabilities: npt.ArrayLike) -> None:
        """Answer with these probabilities from now on.

        Args:
            probabilities: (K,) for each image, or (M, K) for the images of a request; where there
                are more than M, from the first row again.

        Raises:
            ValueError: K is not the number of classes.
        """
        fixed = np.atleast_2d(np.asarray(probabilities, np.float32))
        if fixed.shape[1:] != (len(self.class_labels),):
            raise ValueError(
                f"probabilities: expected {len(self.class_labels)} of each image, one for each of "
                f"class_labels, got shape {np.shape(probabilities)}"
            )
        self._fixed = fixed

    def answer_ood_scores(self, scores: npt.ArrayLike) -> None:
        """Answer with these out-of-distribution scores from now on, where they are asked for.

        Args:
            scores: Of the images of a request, in their order; where there are more images, from
                the first again. ``ood_threshold`` is 1. Without this call, all scores are 0.
        """
        self._ood_scores = np.atleast_1d(np.asarray(scores, np.float32))

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
        self._fixed, self._delay_s = None, 0.0
        self._ood_scores = np.zeros(1, np.float32)

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

    def probabilities(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the (N, K) float32 answer to (N, D) images."""
        if self._fixed is not None:
            return np.resize(self._fixed, (len(images), self._fixed.shape[1]))
        scaled = images.astype(np.float32)
        if images.dtype == np.uint8:
            scaled /= np.iinfo(np.uint8).max
        network = self._network or _TinyNetwork(images.shape[1], len(self.class_labels))
        return network.probabilities(scaled)

    def explanations(
        self, images: npt.NDArray[Any], classes: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return (N, D) attributions, and the (N,) logits of classes and of the darkest image.

        They are made up, but complete: what an image changed in the logit, the logarithm of its
        probability here, is shared among its values by how bright they are.
        """
        values = images.astype(np.float32) + _TINY
        shares = values / values.sum(axis=1, keepdims=True)
        found = (self.probabilities(each) for each in (images, np.zeros_like(images)))
        chosen = classes[:, np.newaxis]
        logits, baseline = (
            np.log(np.take_along_axis(each, chosen, axis=1) + _TINY) for each in found
        )
        return shares * (logits - baseline), logits[:, 0], baseline[:, 0]

    def ood_scores(self, count: int) -> bytes:
        """Return the scores of so many images, as they are sent."""
        return np.resize(self._ood_scores, count).astype("<f4").tobytes()

    def description(self) -> prediction_pb2.Model:
        """Return what the server says of its model."""
        version = prediction_pb2.ModelVersion(
            version=self.version,
            layer_sizes=[math.prod(self.input_shape), len(self.class_labels)],
            activations=["softmax"],
            input_shape=self.input_shape,
            input_data_types=list(_DTYPES),
            class_labels=self.class_labels,
            ood_threshold=self.ood_threshold,
        )
        return prediction_pb2.Model(
            name=self.model,
            versions=[version],
            max_batch_images=_MAX_IMAGES,
            default_version=self.version,
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
    dtype = _DTYPES.get(batch.data_type)
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


class _TinyNetwork:
    """One layer with softmax, whose weights are random and always the same."""

    def __init__(self, inputs: int, classes: int) -> None:
        rng = np.random.default_rng(inputs)
        self._weights = rng.normal(0, inputs**-0.5, (inputs, classes)).astype(np.float32)

    def probabilities(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        powers = np.exp(inputs @ self._weights)
        shares: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return shares


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
