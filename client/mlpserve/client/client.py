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

from mlpserve.client.batches import as_wire_array, encode, split
from mlpserve.client.channel import open_channel
from mlpserve.client.errors import (
    ClientError,
    InvalidRequestError,
    ServerFaultError,
    client_error,
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

    Calls that find the server unavailable are tried again for about a second, but not streams.

    Args:
        target: ``host:port``. Where a name has several addresses, calls go round all of them.
        timeout_s: Seconds that a call may take, all its requests and retries included.

    Raises:
        InvalidRequestError: An argument is out of its range.
    """

    def __init__(self, target: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        if not target:
            raise InvalidRequestError("target: expected HOST:PORT, got an empty string")
        self._target = target
        self._timeout_s = _checked_timeout_s(timeout_s)
        self._channel = open_channel(target)
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
        timeout_s: float | None = None,
    ) -> Predictions:
        """Classify images.

        Many images are sent as several requests. All of them are answered by one version, even
        if the server takes up a newer one meanwhile.

        Args:
            images: (N, D) or (N, height, width), N at least 1; uint8 in 0..255, or float in 0..1,
                which is sent as float32. uint8 is four times smaller.
            model: The model to ask; may be left out where the server serves one only.
            version: The version that must answer; 0 for the newest.
            timeout_s: Seconds for this call, instead of the client's.

        Raises:
            InvalidRequestError: The images are not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        deadline_s = self._deadline_s(timeout_s)
        first_batch, *batches = split(as_wire_array(images))
        with self._translated():
            # Not a future: a call that is waited for is spared a hand-off between threads.
            response = self._stub.Predict(
                _request(first_batch, model, version), timeout=_remaining_s(deadline_s)
            )
        first = read_predictions(response, len(first_batch))
        # The version that answered first is the one that the rest is asked of.
        rest = self._pipelined(batches, model, first.model_version, deadline_s)
        return join_predictions([first, *rest])

    def predict_stream(
        self,
        batches: Iterable[npt.ArrayLike],
        *,
        model: str = "",
        version: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[Predictions]:
        """Classify batch after batch over one call, for jobs too big for memory.

        Batches are taken from ``batches`` by a thread of gRPC's, while earlier answers are still
        under way. Leaving the iterator ends the call.

        Args:
            batches: Each as ``images`` of ``predict``, and small enough for one request.
            model: As for ``predict``.
            version: As for ``predict``; with 0, each batch is answered by the newest.
            timeout_s: Seconds for the whole stream, instead of the client's.

        Yields:
            The answer to each batch, in their order.

        Raises:
            InvalidRequestError: A batch is not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        requests = _StreamRequests(batches, model, version)
        with self._translated():
            call = self._stub.PredictStream(
                requests, timeout=_remaining_s(self._deadline_s(timeout_s))
            )
            try:
                for response in call:
                    yield read_predictions(response, requests.next_count())
            finally:
                call.cancel()
        requests.check_end()

    def model(
        self, name: str = "", *, version: int = 0, timeout_s: float | None = None
    ) -> ModelInfo:
        """Describe one model.

        Args:
            name: The model; may be left out where the server serves one only.
            version: Describe this version only; 0 for all that are served.
            timeout_s: Seconds for this call, instead of the client's.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        request = prediction_pb2.GetModelRequest(
            model_name=_checked_name(name), model_version=_checked_version(version)
        )
        with self._translated():
            timeout = _remaining_s(self._deadline_s(timeout_s))
            return read_model(self._stub.GetModel(request, timeout=timeout).model)

    def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Describe all models that are served, in the order of their names.

        Args:
            timeout_s: Seconds for this call, instead of the client's.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        with self._translated():
            timeout = _remaining_s(self._deadline_s(timeout_s))
            response = self._stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=timeout)
            return [read_model(model) for model in response.models]

    def _pipelined(
        self, batches: Iterable[npt.NDArray[Any]], model: str, version: int, deadline_s: float
    ) -> Iterator[Predictions]:
        """Send batches, several at once, and yield their answers in order."""
        under_way: deque[tuple[int, grpc.Future[prediction_pb2.PredictResponse]]] = deque()
        with self._translated():
            try:
                for batch in batches:
                    if len(under_way) == _MAX_IN_FLIGHT:
                        count, call = under_way.popleft()
                        yield read_predictions(call.result(), count)
                    request = _request(batch, model, version)
                    call = self._stub.Predict.future(request, timeout=_remaining_s(deadline_s))
                    under_way.append((len(batch), call))
                while under_way:
                    count, call = under_way.popleft()
                    yield read_predictions(call.result(), count)
            finally:
                for _, call in under_way:
                    call.cancel()

    def _deadline_s(self, timeout_s: float | None) -> float:
        """Return when a call must have ended, by the monotonic clock."""
        allowed_s = self._timeout_s if timeout_s is None else _checked_timeout_s(timeout_s)
        return time.monotonic() + allowed_s

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


class _StreamRequests:
    """The requests of a stream, made from batches as gRPC's thread asks for them.

    gRPC swallows what an iterator of requests raises. So a failure ends the requests, and is kept
    for the thread that reads the answers.
    """

    def __init__(self, batches: Iterable[npt.ArrayLike], model: str, version: int) -> None:
        self._counts: deque[int] = deque()
        self._failure: Exception | None = None
        self._are_all_sent = False
        self._batches = iter(batches)
        self._model = _checked_name(model)
        self._version = _checked_version(version)

    def __iter__(self) -> Iterator[prediction_pb2.PredictStreamRequest]:
        return self

    def __next__(self) -> prediction_pb2.PredictStreamRequest:
        try:
            images = as_wire_array(next(self._batches))
        except StopIteration:
            self._are_all_sent = True
            raise
        except Exception as error:
            self._failure = error
            raise StopIteration from error
        self._counts.append(len(images))
        return prediction_pb2.PredictStreamRequest(
            model_name=self._model, model_version=self._version, images=encode(images)
        )

    def next_count(self) -> int:
        """Return how many images the next answer is about."""
        if not self._counts:
            raise ServerFaultError("answer: expected one for each batch, got one more")
        return self._counts.popleft()

    def check_end(self) -> None:
        """Raise what kept the batches from being sent, or answered, to their end."""
        if self._failure is not None:
            raise self._failure
        if self._counts or not self._are_all_sent:
            raise ServerFaultError("answer: expected one for each batch, but the stream ended")


def _request(images: npt.NDArray[Any], model: str, version: int) -> prediction_pb2.PredictRequest:
    return prediction_pb2.PredictRequest(
        model_name=_checked_name(model),
        model_version=_checked_version(version),
        images=encode(images),
    )


def _checked_name(name: str) -> str:
    # A command line that is no Unicode becomes half characters, and those no message can hold.
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"model: expected valid Unicode text, got {name!r}") from error
    return name


def _checked_version(version: int) -> int:
    if not 0 <= version < 2**63:
        raise InvalidRequestError(
            f"version: expected a positive number, or 0 for the newest, got {version}"
        )
    return version


def _checked_timeout_s(timeout_s: float) -> float:
    if not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise InvalidRequestError(f"timeout_s: expected seconds above 0, got {timeout_s}")
    return timeout_s


def _remaining_s(deadline_s: float) -> float:
    """Return the seconds until a deadline; at once past it, but never what gRPC rejects."""
    return max(deadline_s - time.monotonic(), 0.0)
