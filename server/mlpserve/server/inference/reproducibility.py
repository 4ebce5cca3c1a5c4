"""Whether answers are the same to the bit, whoever shares the batch and however large it is."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from mlpserve.server.inference.compiled import CompiledModel, Images, Workspace

_SEED: Final = 20
# Sizes on both sides of those at which BLAS libraries and NumPy change how they compute.
_SIZES: Final = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 129, 256, 257, 511, 520)


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
