"""The requests that calls send, made from what the caller gives."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from mlpserve.client.batches import as_wire_array, encode
from mlpserve.client.errors import InvalidRequestError, ServerFaultError
from mlpserve.v1 import prediction_pb2


@dataclass(frozen=True)
class Asked:
    """Which version of which model is asked; checked when it is made.

    Attributes:
        model: The model; empty where the server serves one only.
        version: The version; 0 for none in particular.
        label: The label whose version it is; empty for none.

    Raises:
        InvalidRequestError: ``model`` or ``label`` is not valid Unicode, ``version`` is out of its
            range, or there is a ``label`` beside it.
    """

    model: str = ""
    version: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        _check_text("model", self.model)
        _check_text("label", self.label)
        if not 0 <= self.version < 2**63:
            raise InvalidRequestError(
                f"version: expected a positive number, or 0 for none in particular, "
                f"got {self.version}"
            )
        if self.version and self.label:
            raise InvalidRequestError(
                f"label: expected either a version or a label, got version {self.version} and "
                f"label {self.label!r}"
            )


def predict_request(images: npt.NDArray[Any], asked: Asked) -> prediction_pb2.PredictRequest:
    """Return the request for (N, D) images, as ``as_wire_array`` returns them."""
    return prediction_pb2.PredictRequest(
        model_name=asked.model,
        model_version=asked.version,
        model_label=asked.label,
        images=encode(images),
    )


def get_model_request(asked: Asked) -> prediction_pb2.GetModelRequest:
    """Return the request for the description of a model."""
    return prediction_pb2.GetModelRequest(
        model_name=asked.model, model_version=asked.version, model_label=asked.label
    )


class StreamRequests:
    """The requests of a stream, made from batches as gRPC's thread asks for them.

    gRPC swallows what an iterator of requests raises. So a failure ends the requests, and is kept
    for the thread that reads the answers.

    Args:
        batches: Each as ``images`` of ``Client.predict``.
        asked: What is to answer.
    """

    def __init__(self, batches: Iterable[npt.ArrayLike], asked: Asked) -> None:
        self._counts: deque[int] = deque()
        self._failure: BaseException | None = None
        self._are_all_sent = False
        self._batches = iter(batches)
        self._asked = asked

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
            model_name=self._asked.model,
            model_version=self._asked.version,
            model_label=self._asked.label,
            images=encode(images),
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


def _check_text(name: str, text: str) -> None:
    # A command line that is no Unicode becomes half characters, and those no message can hold.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{name}: expected valid Unicode text, got {text!r}") from error
