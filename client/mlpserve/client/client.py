"""The client: one object for one server, or for all that a name resolves to."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import grpc
import numpy.typing as npt

from mlpserve.client.arrays import as_wire_array
from mlpserve.client.channel import checked_target, open_channel, trace_metadata
from mlpserve.client.errors import (
    ClientError,
    InvalidRequestError,
    TimeoutExceededError,
    client_error,
)
from mlpserve.client.requests import (
    MAX_IMAGES_PER_REQUEST,
    ModelSelector,
    StreamRequests,
    get_model_request,
    predict_request,
    split,
)
from mlpserve.client.results import (
    ModelInfo,
    Predictions,
    join_predictions,
    read_model,
    read_predictions,
)
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

DEFAULT_TIMEOUT_S: Final = 30.0
# So many requests of one array are under way at once: one is computed while others travel.
_MAX_IN_FLIGHT: Final = 4


class Client:
    """Calls an mlpserve server. Safe to use from many threads; close it when done.

    Calls that find the server unavailable are tried again for about two seconds, but not streams.

    It has one connection to each address of the target, and one process of a server answers what
    comes over it. Several clients reach several processes of a server that has more.
    Where a span of OpenTelemetry is current, calls belong to its trace.

    Args:
        target: ``host:port``. Where a name has several addresses, calls go round all of them.
        timeout_s: Seconds that a call may take, all its requests and retries included.
        credentials: For TLS, as ``grpc.ssl_channel_credentials`` makes them; without them, nothing
            is encrypted.
        token: The bearer token that a server may ask for. It is sent with each call, so that it
            needs TLS wherever others may listen.

    Raises:
        InvalidRequestError: An argument is out of its range.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str = "",
    ) -> None:
        self._target = checked_target(target)
        self._timeout_s = _checked_timeout_s(timeout_s)
        self._authorization = _authorization(token)
        self._channel = open_channel(target, credentials)
        self._stub = prediction_pb2_grpc.PredictionServiceStub(self._channel)
        self._is_closed = False

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way end with an error."""
        self._is_closed = True
        self._channel.close()

    def predict(
        self,
        images: npt.ArrayLike,
        *,
        model: str = "",
        version: int = 0,
        label: str = "",
        timeout_s: float | None = None,
        max_images_per_request: int = MAX_IMAGES_PER_REQUEST,
    ) -> Predictions:
        """Classify images.

        Many images are sent as several requests. All of them are answered by one version, even
        if the server takes up a newer one meanwhile, or a label comes to mean another.

        Args:
            images: (N, D) or (N, height, width), N at least 1; uint8 in 0..255, or float in 0..1,
                which is sent as float32. uint8 is four times smaller.
            model: The model to ask; may be left out where the server serves one only.
            version: The version that must answer; 0 leaves it to ``label``.
            label: The label whose version must answer; without it, and without ``version``, that
                of the server's default label does, or else the newest.
            timeout_s: Seconds for this call, instead of the client's.
            max_images_per_request: The most images to send as one request; a server may ask for
                fewer than is usual, as ``ModelInfo.max_batch_images``.

        Raises:
            InvalidRequestError: The images are not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        deadline_s = time.monotonic() + self._allowed_s(timeout_s)
        selector = ModelSelector(model, version, label)
        first_batch, *batches = split(as_wire_array(images), max_images=max_images_per_request)
        with self._translated():
            # Not a future: a call that is waited for is spared a hand-off between threads.
            response = self._stub.Predict(
                predict_request(first_batch, selector),
                timeout=_remaining_s(deadline_s),
                metadata=self._metadata(),
            )
        first = read_predictions(response, len(first_batch))
        # The version that answered first is the one that the rest is asked of.
        rest = self._pipelined(batches, ModelSelector(model, first.model_version), deadline_s)
        return join_predictions([first, *rest])

    def predict_stream(
        self,
        batches: Iterable[npt.ArrayLike],
        *,
        model: str = "",
        version: int = 0,
        label: str = "",
        timeout_s: float | None = None,
    ) -> Iterator[Predictions]:
        """Classify batch after batch over one call, for jobs too big for memory.

        Batches are taken from ``batches`` by a thread of gRPC's, while earlier answers are still
        under way. Leaving the iterator ends the call.

        Args:
            batches: Each as ``images`` of ``predict``, and small enough for one request.
            model: As for ``predict``.
            version: As for ``predict``.
            label: As for ``predict``; what it means, or which is the default, is looked up anew for
                each batch.
            timeout_s: Seconds for the whole stream, instead of the client's.

        Yields:
            The answer to each batch, in their order.

        Raises:
            InvalidRequestError: A batch is not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        requests = StreamRequests(batches, ModelSelector(model, version, label))
        deadline_s = time.monotonic() + self._allowed_s(timeout_s)
        with self._translated():
            call = self._stub.PredictStream(
                requests, timeout=_remaining_s(deadline_s), metadata=self._metadata()
            )
            try:
                for response in call:
                    yield read_predictions(response, requests.next_count())
            finally:
                call.cancel()
        # A server whose own clock sees the deadline first may end the stream as if it were done.
        if time.monotonic() >= deadline_s and requests.are_answers_missing:
            raise TimeoutExceededError(
                f"{self._target}: the deadline passed before the last answer"
            )
        requests.check_end()

    def model(
        self,
        name: str = "",
        *,
        version: int = 0,
        label: str = "",
        timeout_s: float | None = None,
    ) -> ModelInfo:
        """Describe one model.

        Args:
            name: The model; may be left out where the server serves one only.
            version: Describe this version only; 0 for all that are served.
            label: Describe only the version that this label means.
            timeout_s: Seconds for this call, instead of the client's.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        request = get_model_request(ModelSelector(name, version, label))
        with self._translated():
            response = self._stub.GetModel(
                request, timeout=self._allowed_s(timeout_s), metadata=self._metadata()
            )
            return read_model(response.model)

    def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Describe all models that are served, in the order of their names.

        Args:
            timeout_s: Seconds for this call, instead of the client's.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        request = prediction_pb2.ListModelsRequest()
        with self._translated():
            response = self._stub.ListModels(
                request, timeout=self._allowed_s(timeout_s), metadata=self._metadata()
            )
            return [read_model(model) for model in response.models]

    def _pipelined(
        self, batches: Iterable[npt.NDArray[Any]], selector: ModelSelector, deadline_s: float
    ) -> Iterator[Predictions]:
        """Send batches, several at once, and yield their answers in order."""
        under_way: deque[tuple[int, grpc.Future[prediction_pb2.PredictResponse]]] = deque()
        with self._translated():
            try:
                for batch in batches:
                    if len(under_way) == _MAX_IN_FLIGHT:
                        count, call = under_way.popleft()
                        yield read_predictions(call.result(), count)
                    request = predict_request(batch, selector)
                    call = self._stub.Predict.future(
                        request, timeout=_remaining_s(deadline_s), metadata=self._metadata()
                    )
                    under_way.append((len(batch), call))
                while under_way:
                    count, call = under_way.popleft()
                    yield read_predictions(call.result(), count)
            finally:
                for _, call in under_way:
                    call.cancel()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what is sent along with a call that is made now."""
        return self._authorization + trace_metadata()

    def _allowed_s(self, timeout_s: float | None) -> float:
        """Return the seconds that a call may take: its own, or the client's."""
        return self._timeout_s if timeout_s is None else _checked_timeout_s(timeout_s)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise the client's own errors in place of gRPC's."""
        if self._is_closed:
            raise ClientError(f"{self._target}: the client is closed")
        try:
            yield
        except ClientError:
            raise
        # The last is how gRPC refuses calls on a channel that was closed.
        except (grpc.RpcError, grpc.FutureCancelledError, ValueError) as error:
            if self._is_closed:
                raise ClientError(f"{self._target}: the client was closed meanwhile") from error
            if isinstance(error, grpc.RpcError):
                raise client_error(error, self._target) from error
            raise


def _authorization(token: str) -> tuple[tuple[str, str], ...]:
    if not token:
        return ()
    # gRPC's own complaint would show the token.
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidRequestError("token: expected printable ASCII characters without spaces")
    return (("authorization", f"Bearer {token}"),)


def _checked_timeout_s(timeout_s: float) -> float:
    if not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise InvalidRequestError(f"timeout_s: expected seconds above 0, got {timeout_s}")
    return timeout_s


def _remaining_s(deadline_s: float) -> float:
    """Return the seconds until a deadline; at once past it, but never what gRPC rejects."""
    return max(deadline_s - time.monotonic(), 0.0)
