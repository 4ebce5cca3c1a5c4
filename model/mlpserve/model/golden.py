"""Golden samples: a few images with the probabilities that a version gives for them.

They travel in the weights file, so that whoever loads it, on another machine or in another program,
can see whether it computes what the trainer computed. Knows no file.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import FloatArray
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network

# Other processors and libraries sum in another order, which moves a probability by some 1e-6. A
# wrong weight, scale or order of the pixels moves some of them by far more than this.
GOLDEN_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, eq=False)
class GoldenSamples:
    """Images and the probabilities that a network gives for them; checked when it is made.

    Attributes:
        images: (S, ...) uint8, or float32 from 0 to 1; S at least 1, each of the input's shape.
        probabilities: (S, K) float32, from 0 to 1.

    Raises:
        WeightsFileError: A dtype, a shape or a value is another.
    """

    images: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        _check("golden_images", self.images, (np.uint8, np.float32))
        _check("golden_probabilities", self.probabilities, (np.float32,))
        if self.probabilities.ndim != 2 or len(self.probabilities) != len(self.images):  # noqa: PLR2004 - a matrix
            raise WeightsFileError(
                f"golden_probabilities: expected {len(self.images)} rows, one an image, "
                f"got {self.probabilities.shape}"
            )

    def largest_difference(self, probabilities: FloatArray) -> float:
        """Return how far other (S, K) probabilities for the images are from these at most.

        NaN where one of them is NaN, so ask whether it is within a tolerance, not beyond it.
        """
        return float(np.abs(probabilities - self.probabilities).max())


def golden_samples(network: Network, spec: InputSpec, images: npt.NDArray[Any]) -> GoldenSamples:
    """Return images with what a network answers.

    Args:
        network: The network as it is published: in float32.
        spec: What it takes.
        images: A few, (S, ...) uint8 or float32, each of the shape of ``spec``.
    """
    return GoldenSamples(images, network.probabilities(spec.scale(images)).astype(np.float32))


def _check(
    name: str, array: npt.NDArray[Any], dtypes: tuple[type[np.uint8 | np.float32], ...]
) -> None:
    if array.dtype not in dtypes:
        expected = " or ".join(dtype.__name__ for dtype in dtypes)
        raise WeightsFileError(f"{name}: expected {expected}, got {array.dtype}")
    if array.ndim == 0 or 0 in array.shape:
        raise WeightsFileError(f"{name}: expected at least one sample, got {array.shape}")
    # Written so that a NaN, which compares false, is refused as well.
    if array.dtype == np.float32 and not (array.min() >= 0 and array.max() <= 1):
        raise WeightsFileError(
            f"{name}: expected values from 0 to 1, got {array.min():g} to {array.max():g}"
        )
