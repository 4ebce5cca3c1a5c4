"""The requests that calls send, made from what the caller gives."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy.typing as npt

from mlpserve.client.batches import as_wire_array, encode
from mlpserve.client.errors import InvalidRequestError, ServerFaultError
from mlpserve.v1 import prediction_pb2


def predict_request(
    images: npt.NDArray[Any], model: str, version: int
) -> prediction_pb2.PredictRequest:
    """Return the request for (N, D) images, as ``as_wire_array`` returns them.

    Raises:
        InvalidRequestError: ``model`` is not valid Unicode, or ``version`` is out of its range.
    """
    return prediction_pb2.PredictRequest(
        model_name=_checked_name(model),
        model_version=_checked_version(version),
        images=encode(images),
    )


def get_model_request(name: str, version: int) -> prediction_pb2.GetModelRequest:
    """Return the request for the description of a model.

    Raises:
        InvalidRequestError: ``name`` is not valid Unicode, or ``version`` is out of its range.
    """
    return prediction_pb2.GetModelRequest(
        model_name=_checked_name(name), model_version=_checked_version(version)
    )


class StreamRequests:
    """The requests of a stream, made from batches as gRPC's thread asks for them.

    gRPC swallows what an iterator of requests raises. So a failure ends the requests, and is kept
    for the thread that reads the answers.

    Args:
        batches: Each as ``images`` of ``Client.predict``.
        model: The model to ask.
        version: The version that must answer; 0 for the newest.

    Raises:
        InvalidRequestError: ``model`` is not valid Unicode, or ``version`` is out of its range.
    """

    def __init__(self, batches: Iterable[npt.ArrayLike], model: str, version: int) -> None:
        self._counts: deque[int] = deque()
        self._failure: BaseException | None = None
        self._are_all_sent = False
        self._batches = iter(batches)
        self._model = _checked_name(model)
        self._version = _checked_version(version)

    def __iter__(self) -> Iterator[prediction_pb2.PredictStreamRequest]:
        """Return the iterator itself."""
        return self

    def __next__(self) -> prediction_pb2.PredictStreamRequest:
        """Return the request for the next batch."""
        try:
            images = as_wire_array(next(self._batches))
        except StopIteration:
            self._are_all_sent = True
            raise
        except BaseException as error:
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
