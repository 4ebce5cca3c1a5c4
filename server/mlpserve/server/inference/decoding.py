"""The request path: the bytes of a batch in, the bytes of its answer or an error out.

Knows neither gRPC nor protobuf, so that every adapter gives the same answers and the same errors.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.model.inputs import InputSpec
from mlpserve.model.weights import GOLDEN_TOLERANCE, GoldenSamples
from mlpserve.server.errors import RequestError
from mlpserve.server.inference.compiled import CompiledModel, Images, Workspace

ImageDType: TypeAlias = np.dtype[Any]  # UINT8 or FLOAT32

UINT8: Final = np.dtype("u1")
FLOAT32: Final = np.dtype("<f4")  # little-endian, whatever the machine is
_SUM_TOLERANCE: Final = 1e-4


class Answer(NamedTuple):
    """What a model says of a batch.

    Attributes:
        probabilities: (N, K) float32, little-endian, as bytes.
        labels: (N,) int32, little-endian, as bytes: the index of each row's highest probability.
    """

    probabilities: bytes
    labels: bytes


def answers(model: CompiledModel, batches: Sequence[Images], workspace: Workspace) -> list[Answer]:
    """Classify the batches of several callers in one pass.

    Args:
        model: The model to ask.
        batches: As ``CompiledModel.classify`` takes them, each as ``decode_images`` returns it.
        workspace: What to compute in.

    Returns:
        To each batch its answer, in their order.
    """
    found = model.classify(batches, workspace)
    # All rows at once: slices of bytes are cut faster than slices of arrays are written.
    probabilities = found.probabilities.astype("<f4", copy=False).tobytes()
    labels = found.labels.astype("<i4", copy=False).tobytes()
    row_bytes, label_bytes = len(probabilities) // len(found.labels), found.labels.itemsize
    separate: list[Answer] = []
    start = 0
    for images in batches:
        end = start + len(images)
        separate.append(
            Answer(
                probabilities[start * row_bytes : end * row_bytes],
                labels[start * label_bytes : end * label_bytes],
            )
        )
        start = end
    return separate


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
        check_range(images, "images.data")
    return images


def self_test(model: CompiledModel, golden: GoldenSamples | None) -> str | None:
    """Have a model answer a few images, as requests are answered.

    These are a black and a white image in each data type, and the golden samples of its file.

    Returns:
        What is wrong with the answers; None where all is well.
    """
    for dtype, white in ((UINT8, np.iinfo(np.uint8).max), (FLOAT32, 1)):
        values = np.repeat(np.array([[0], [white]], dtype), model.metadata.input.values_per_image)
        rows = _answered(model, values.reshape(2, -1))
        sums = rows.sum(axis=1)
        # Written so that a NaN, which compares false, is refused as well.
        if not (rows.min() >= 0 and np.abs(sums - 1).max() < _SUM_TOLERANCE):
            return f"expected probabilities that sum to 1, got {rows.min():g} and sums {sums}"
    if golden is None:
        return None
    difference = golden.largest_difference(_answered(model, golden.images))
    if not difference <= GOLDEN_TOLERANCE:
        return f"expected the probabilities of the golden samples, got one off by {difference:.3g}"
    return None


def _answered(model: CompiledModel, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the (N, K) probabilities of a request with these images."""
    decoded = decode_images(
        images.tobytes(),
        count=len(images),
        dtype=images.dtype,
        spec=model.metadata.input,
        max_batch_images=len(images),
    )
    (found,) = answers(model, [decoded], Workspace())
    return np.frombuffer(found.probabilities, FLOAT32).reshape(len(images), -1)


def check_range(images: Images, field: str) -> None:
    """Check that float32 values, at least one, are from 0 to 1.

    Args:
        images: The values.
        field: What the caller calls the field that they come from.

    Raises:
        RequestError: One is not.
    """
    lowest, highest = images.min(), images.max()
    # Written so that a NaN, which compares false, is refused as well.
    if not (lowest >= 0 and highest <= 1):
        hint = ""
        if lowest >= 0 and 1 < highest <= np.iinfo(np.uint8).max:
            hint = "; values up to 255 are sent as uint8, or divided by 255"
        raise RequestError(
            f"{field}: expected {images.dtype.name} values from 0 to 1, "
            f"got {lowest:g} to {highest:g}{hint}"
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
