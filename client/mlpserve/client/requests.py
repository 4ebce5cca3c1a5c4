"""Requests of calls: images as wire arrays, split into batches, and the messages made of them."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.client.arrays import as_wire_array
from mlpserve.client.errors import InvalidRequestError, ServerFaultError
from mlpserve.v1 import prediction_pb2

# Enough that a request's fixed cost does not count, little enough that several are under way soon.
MAX_IMAGES_PER_REQUEST: Final = 1024
# Below the 4 MiB at which gRPC, and what stands between client and server, refuses by default.
_MAX_BYTES_PER_REQUEST: Final = 3 * 1024 * 1024


@dataclass(frozen=True)
class ModelSelector:
    """A model, and the version of it that is to answer; checked when it is made.

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


def split(
    images: npt.NDArray[Any], *, max_images: int = MAX_IMAGES_PER_REQUEST
) -> Iterator[npt.NDArray[Any]]:
    """Yield the (N, D) images in runs that are each small enough for one request.

    Raises:
        InvalidRequestError: ``max_images`` is below 1.
    """
    if max_images < 1:
        raise InvalidRequestError(f"max_images_per_request: expected at least 1, got {max_images}")
    bytes_per_image = images.shape[1] * images.itemsize
    fitting = max(1, _MAX_BYTES_PER_REQUEST // bytes_per_image)
    step = min(max_images, fitting)
    for start in range(0, len(images), step):
        yield images[start : start + step]


def encode(images: npt.NDArray[Any]) -> prediction_pb2.ImageBatch:
    """Return (N, D) images, as ``as_wire_array`` returns them, as a message."""
    is_uint8 = images.dtype == np.uint8
    return prediction_pb2.ImageBatch(
        count=len(images),
        data_type=(
            prediction_pb2.DATA_TYPE_UINT8 if is_uint8 else prediction_pb2.DATA_TYPE_FLOAT32
        ),
        data=images.tobytes(),
    )


def predict_request(
    images: npt.NDArray[Any], selector: ModelSelector
) -> prediction_pb2.PredictRequest:
    """Return the request for (N, D) images, as ``as_wire_array`` returns them."""
    return prediction_pb2.PredictRequest(
        model_name=selector.model,
        model_version=selector.version,
        model_label=selector.label,
        images=encode(images),
    )


def get_model_request(selector: ModelSelector) -> prediction_pb2.GetModelRequest:
    """Return the request for the description of a model."""
    return prediction_pb2.GetModelRequest(
        model_name=selector.model, model_version=selector.version, model_label=selector.label
    )


class StreamRequests:
    """The requests of a stream, made from batches as gRPC's thread asks for them.

    gRPC swallows what an iterator of requests raises. So a failure ends the requests, and is kept
    for the thread that reads the answers.

    Args:
        batches: Each as ``images`` of ``Client.predict``.
        selector: What is to answer.
    """

    def __init__(self, batches: Iterable[npt.ArrayLike], selector: ModelSelector) -> None:
        self._counts: deque[int] = deque()
        self._failure: BaseException | None = None
        self._are_all_sent = False
        self._batches = iter(batches)
        self._selector = selector

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
            model_name=self._selector.model,
            model_version=self._selector.version,
            model_label=self._selector.label,
            images=encode(images),
        )

    def next_count(self) -> int:
        """Return how many images the next answer is about."""
        if not self._counts:
            raise ServerFaultError("answer: expected one for each batch, got one more")
        return self._counts.popleft()

    @property
    def are_answers_missing(self) -> bool:
        """Whether a batch was not answered, or not sent although nothing failed here."""
        return self._failure is None and (bool(self._counts) or not self._are_all_sent)

    def check_end(self) -> None:
        """Raise what kept the batches from being sent, or answered, to their end."""
        if self._failure is not None:
            raise self._failure
        if self.are_answers_missing:
            raise ServerFaultError("answer: expected one for each batch, but the stream ended")


def _check_text(name: str, text: str) -> None:
    # A command line that is no Unicode becomes half characters, and those no message can hold.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{name}: expected valid Unicode text, got {text!r}") from error
