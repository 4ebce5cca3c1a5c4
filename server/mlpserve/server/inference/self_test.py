"""Self-test of a model before it serves: sane answers, golden samples, reproducible bits."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.compiled import CompiledModel, Images, Workspace
from mlpserve.model.weights import GOLDEN_TOLERANCE, GoldenSamples
from mlpserve.server.inference.decoding import FLOAT32, decode_images

_SUM_TOLERANCE: Final = 1e-4
_SEED: Final = 20
# Sizes on both sides of those at which BLAS libraries and NumPy change how they compute.
_SIZES: Final = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 129, 256, 257, 511, 520)


def self_test(model: CompiledModel, golden: GoldenSamples | None) -> str | None:
    """Have a model answer a few images, in the way requests are answered.

    These are a black and a white image in each data type that has its values, and the golden
    samples of its file.

    Returns:
        What is wrong with the answers; None where all is well.
    """
    spec = model.metadata.input
    for dtype in spec.wire_dtypes:
        values = np.repeat(np.array(spec.limits(dtype), dtype), spec.values_per_image)
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
    (found,) = model.answers([decoded], Workspace())
    return np.frombuffer(found.probabilities, FLOAT32).reshape(len(images), -1)


def reproducibility_problem(model: CompiledModel) -> str | None:
    """Compare the answers to images in batches of many sizes with those to each of them alone.

    Args:
        model: Compiled to be reproducible.

    Returns:
        Which answer differed; None where none did.
    """
    workspace = Workspace()
    for images in _images(model):
        alone = [
            model.classify([image], workspace).probabilities for image in images[:, np.newaxis]
        ]
        for size in _SIZES:
            for first in {0, len(images) - size}:
                batch = images[first : first + size]
                found = model.classify([batch], workspace).probabilities
                expected = np.concatenate(alone[first : first + size])
                # As bytes: 0 and -0 are equal, and yet not the same.
                if found.tobytes() != expected.tobytes():
                    return (
                        f"answers to a batch of {size} {batch.dtype} images differ from single ones"
                    )
    return None


def _images(model: CompiledModel) -> Iterator[Images]:
    shape = (max(_SIZES) + 3, model.metadata.input.values_per_image)
    pixels = np.random.default_rng(_SEED).integers(0, 256, shape, np.uint8)
    yield pixels
    yield (pixels / np.float32(255)).astype(np.float32)
