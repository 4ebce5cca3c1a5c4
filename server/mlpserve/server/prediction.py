"""The request path: the bytes of a batch in, the bytes of its answer or an error out.

Knows neither gRPC nor protobuf, so that every adapter gives the same answers and the same errors.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.model.inputs import InputSpec
from mlpserve.model.weights import Model
from mlpserve.server.errors import RequestError

Images: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

ImageDType: TypeAlias = np.dtype[Any]  # UINT8 or FLOAT32

UINT8: Final = np.dtype("u1")
FLOAT32: Final = np.dtype("<f4")  # little-endian, whatever the machine is
_SUM_TOLERANCE: Final = 1e-4


@dataclass(frozen=True)
class Answer:
    """What a model says of a batch.

    Attributes:
        probabilities: (N, K) float32, little-endian, as bytes.
        labels: (N,) int32, little-endian, as bytes: the index of each row's highest probability.
    """

    probabilities: bytes
    labels: bytes


def answer(model: Model, images: Images) -> Answer:
    """Classify a batch.

    Args:
        model: The model to ask.
        images: (N, D) as ``decode_images`` returns them.
    """
    probabilities = model.network.probabilities(model.metadata.input.scale(images))
    return Answer(
        probabilities=probabilities.astype("<f4", copy=False).tobytes(),
        labels=probabilities.argmax(axis=1).astype("<i4").tobytes(),
    )


def decode_images(
    data: bytes,
    *,
    count: int,
    dtype: ImageDType,
    spec: InputSpec,
    max_batch_images: int,
) -> Images:
    """Return the (count, D) images that a request carries: a read-only view of ``data``.

    Args:
        data: The values, row-major.
        count: How many images ``data`` is said to hold.
        dtype: ``UINT8`` or ``FLOAT32``.
        spec: What the model takes.
        max_batch_images: The most images that a request may carry.

    Raises:
        RequestError: ``data`` is not 1 to ``max_batch_images`` images of what the model takes.
    """
    if not 1 <= count <= max_batch_images:
        raise RequestError(
            f"images.count: expected from 1 to {max_batch_images} images a request, got {count}"
        )
    values = spec.values_per_image
    expected = count * values * dtype.itemsize
    if len(data) != expected:
        raise RequestError(
            f"images.data: expected {expected} bytes ({count} images of {_shape(spec)} values, "
            f"{dtype.name}), got {len(data)}{_length_hint(len(data), count, dtype, values)}"
        )
    images: Images = np.frombuffer(data, dtype).reshape(-1, values)
    if dtype == FLOAT32:
        _check_range(images)
    return images


def self_test(model: Model) -> str | None:
    """Have a model answer a black and a white image in each data type, as requests are answered.

    Returns:
        What is wrong with the answer; None where all is well.
    """
    for dtype, white in ((UINT8, np.iinfo(np.uint8).max), (FLOAT32, 1)):
        values = np.repeat(np.array([[0], [white]], dtype), model.metadata.input.values_per_image)
        images = decode_images(
            values.tobytes(), count=2, dtype=dtype, spec=model.metadata.input, max_batch_images=2
        )
        rows = np.frombuffer(answer(model, images).probabilities, FLOAT32).reshape(2, -1)
        sums = rows.sum(axis=1)
        # Written so that a NaN, which compares false, is refused as well.
        if not (rows.min() >= 0 and np.abs(sums - 1).max() < _SUM_TOLERANCE):
            return f"expected probabilities that sum to 1, got {rows.min():g} and sums {sums}"
    return None


def _check_range(images: Images) -> None:
    lowest, highest = images.min(), images.max()
    # Written so that a NaN, which compares false, is refused as well.
    if not (lowest >= 0 and highest <= 1):
        hint = ""
        if lowest >= 0 and 1 < highest <= np.iinfo(np.uint8).max:
            hint = "; values up to 255 are sent as uint8, or divided by 255"
        raise RequestError(
            f"images.data: expected float32 values from 0 to 1, got {lowest:g} to {highest:g}{hint}"
        )


def _shape(spec: InputSpec) -> str:
    return " x ".join(map(str, spec.shape))


def _length_hint(length: int, count: int, dtype: ImageDType, values: int) -> str:
    """Say what the bytes would fit, where that is plain: the usual mistakes are three."""
    other = FLOAT32 if dtype == UINT8 else UINT8
    if length == values * dtype.itemsize:
        return ", which is one image: is images.count right?"
    if length == count * values * other.itemsize:
        return f", which is right for {other.name}: is images.data_type right?"
    per_image, rest = divmod(length, count * dtype.itemsize)
    return "" if rest else f", which is {per_image} values an image"
