"""Requests of calls: images as wire arrays, split into batches, and the messages made of them."""

import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.client.arguments import checked_flag, checked_number, checked_text
from mlpserve.client.arrays import as_wire_array
from mlpserve.client.errors import InvalidRequestError
from mlpserve.v1 import prediction_pb2

# Enough that a request's fixed cost does not count, little enough that several are under way soon.
MAX_IMAGES_PER_REQUEST: Final = 1024
# Below the 4 MiB at which gRPC, and what stands between client and server, refuses by default.
MAX_BYTES_PER_REQUEST: Final = 3 * 1024 * 1024
# From this size on, glibc maps blocks at first.
_MAPPED_BYTES: Final = 128 * 1024
# Twice this is kept: room for four requests of 3 MiB, and gRPC's copies of them.
_KEPT_BYTES: Final = 16 * 1024 * 1024
_MAX_VERSION: Final = 2**63 - 1
_VERSION: Final = "a positive number, or 0 for none in particular"
# The wire format of prediction.proto: field numbers and types of a request and its ImageBatch.
_IMAGES: Final = b"\x1a"
_COUNT: Final = b"\x08"
_TYPE_UINT8: Final = b"\x10\x01"
_TYPE_FLOAT32: Final = b"\x10\x02"
_DATA: Final = b"\x1a"
_SEVEN_BITS: Final = 0x7F
_MORE: Final = 0x80


@dataclass(frozen=True)
class ModelSelector:
    """What is to answer, and how: what a request says beside its images; see ``select``.

    Attributes:
        model: The model; empty where the server serves one only.
        version: The version; 0 for none in particular.
        label: The label whose version it is; empty for none.
        with_timings: Whether the answer is to say where the server spent its time.
        with_ood_scores: Whether the answer is to have out-of-distribution scores.
    """

    model: str = ""
    version: int = 0
    label: str = ""
    with_timings: bool = False
    with_ood_scores: bool = False

    @property
    def encoded(self) -> bytes:
        """The fields of a PredictRequest but its images."""
        wanted = self.with_timings, self.with_ood_scores
        return _encoded(self.model, self.version, self.label, wanted)


@lru_cache(maxsize=64)
def _encoded(model: str, version: int, label: str, wanted: tuple[bool, bool]) -> bytes:
    with_timings, with_ood_scores = wanted
    return prediction_pb2.PredictRequest(
        model_name=model,
        model_version=version,
        model_label=label,
        with_timings=with_timings,
        with_ood_scores=with_ood_scores,
    ).SerializeToString()


def select(
    model: str | None,
    version: int | None,
    label: str | None,
    *,
    name: str = "model",
    with_timings: bool = False,
    with_ood_scores: bool = False,
) -> ModelSelector:
    """Return the selector of a call's arguments; ``name`` is what the first is called there.

    Raises:
        InvalidRequestError: ``model`` or ``label`` is no valid text, ``version`` is no number or
            out of its range, or there is a ``label`` beside it.
    """
    number = 0
    if version is not None:
        number = checked_number(version, "version", _VERSION, least=0, limit=_MAX_VERSION)
    selector = ModelSelector(
        model=checked_text(model, name),
        version=number,
        label=checked_text(label, "label"),
        with_timings=checked_flag(with_timings, "timings"),
        with_ood_scores=checked_flag(with_ood_scores, "ood_scores"),
    )
    if selector.version and selector.label:
        raise InvalidRequestError(
            f"label: expected either a version or a label, got version {number} and "
            f"label {label!r}",
            field="label",
        )
    return selector


def split(
    images: npt.NDArray[Any], *, max_images: int | None = MAX_IMAGES_PER_REQUEST
) -> Iterator[npt.NDArray[Any]]:
    """Yield the (N, D) images in runs that are each small enough for one request.

    Raises:
        InvalidRequestError: ``max_images`` is no number, or below 1.
    """
    if max_images is None:
        max_images = MAX_IMAGES_PER_REQUEST
    most = checked_number(
        max_images, "max_images_per_request", "at least 1", least=1, limit=sys.maxsize
    )
    step = min(most, _images_per_request(images))
    for start in range(0, len(images), step):
        yield images[start : start + step]


def encode_request(images: npt.NDArray[Any], selector: ModelSelector) -> bytes:
    """Return a PredictRequest, or the same PredictStreamRequest, as it travels.

    By hand, so that the images are copied once: protobuf would copy them into its message, and
    once more out of it.

    Args:
        images: (N, D), as ``as_wire_array`` returns them.
        selector: What is to answer.
    """
    data = np.ascontiguousarray(images)
    if data.nbytes >= _MAPPED_BYTES:
        _keep_memory()
    is_uint8 = data.dtype == np.uint8
    batch = (
        _COUNT
        + _varint(len(data))
        + (_TYPE_UINT8 if is_uint8 else _TYPE_FLOAT32)
        + _DATA
        + _varint(data.nbytes)
    )
    size = _varint(len(batch) + data.nbytes)
    return b"".join((selector.encoded, _IMAGES, size, batch, data.data))


def predict_requests(
    batches: Iterable[npt.NDArray[Any]], selector: ModelSelector
) -> Iterator[tuple[int, bytes]]:
    """Yield the number of images of each batch, and the PredictRequest about them."""
    for images in batches:
        yield len(images), encode_request(images, selector)


def get_model_request(selector: ModelSelector) -> prediction_pb2.GetModelRequest:
    """Return the request for the description of a model."""
    return prediction_pb2.GetModelRequest(
        model_name=selector.model, model_version=selector.version, model_label=selector.label
    )


@cache
def _keep_memory() -> None:
    """Have glibc keep the memory of large requests for the next ones.

    It maps blocks from 128 KiB on from the system, and gives them back when they are freed, so that
    each call would pay for a page fault each 4 KiB: more than the call itself takes. When a mapped
    block is freed, glibc takes its size as what the program works with, and keeps blocks up to it,
    and twice as much of free memory. So one such block is freed here; its pages are never touched.
    """
    bytes(_KEPT_BYTES)


async def each_batch(
    batches: Iterable[npt.ArrayLike] | AsyncIterable[npt.ArrayLike],
) -> AsyncIterator[npt.ArrayLike]:
    """Yield each batch; of an array, runs that are each small enough for one request."""
    if hasattr(type(batches), "__array__"):
        batches = _runs(batches)
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch


def _runs(images: Any) -> Iterator[npt.ArrayLike]:  # noqa: ANN401 - whatever has rows
    """Yield runs of an array, a tensor or a frame, each converted only when it is sent."""
    if not np.shape(images):
        as_wire_array(images)  # which says why
    if len(images) == 0:
        return
    one = as_wire_array(images[:1])
    step = min(MAX_IMAGES_PER_REQUEST, _images_per_request(one))
    for start in range(0, len(images), step):
        yield images[start : start + step]


def _images_per_request(images: npt.NDArray[Any]) -> int:
    """Return how many images like the (N, D) ones fit in one request."""
    bytes_per_image: int = images.shape[1] * images.itemsize
    return max(1, MAX_BYTES_PER_REQUEST // bytes_per_image)


def _varint(number: int) -> bytes:
    """Return a number that is not negative in protobuf's variable length."""
    parts = bytearray()
    while number > _SEVEN_BITS:
        parts.append(number & _SEVEN_BITS | _MORE)
        number >>= 7
    parts.append(number)
    return bytes(parts)
