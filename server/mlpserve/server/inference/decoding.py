"""Decoding of images: the bytes of a batch as an array, or an error that says what is wrong.

Knows neither gRPC nor protobuf, so that every endpoint takes the same images.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.model.compiled import Images
from mlpserve.model.inputs import InputSpec
from mlpserve.server.errors import RequestError

ImageDType: TypeAlias = np.dtype[Any]  # UINT8 or FLOAT32

UINT8: Final = np.dtype("u1")
FLOAT32: Final = np.dtype("<f4")  # little-endian, whatever the machine is


def decode_images(
    data: bytes | memoryview,
    *,
    count: int,
    dtype: ImageDType,
    spec: InputSpec,
    max_batch_images: int,
) -> Images:
    """Return the (count, D) images that a request carries: a read-only view of ``data``, or a copy.

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
    images: Images = aligned(data, dtype).reshape(-1, values)
    # Without a range, any byte is good, which need not be looked at.
    if dtype == FLOAT32 or spec.value_range is not None:
        problem = spec.problem(images)
        if problem is not None:
            raise RequestError(f"images.data: {problem}")
    return images


def aligned(data: bytes | memoryview, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return bytes as numbers: a view, or a copy where their addresses are not those of numbers."""
    numbers = np.frombuffer(data, dtype)
    return numbers if numbers.flags.aligned else numbers.copy()


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
