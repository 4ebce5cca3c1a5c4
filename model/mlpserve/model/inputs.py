"""Inputs of a network: images, flattened and scaled to 0..1."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import FloatArray

UINT8_DIVISOR: Final = 255


@dataclass(frozen=True)
class InputSpec:
    """The images that a network takes.

    Attributes:
        shape: The shape of one image, before it is flattened.
        uint8_divisor: uint8 values are divided by this; float values are taken as they are.
    """

    shape: tuple[int, ...]
    uint8_divisor: int = UINT8_DIVISOR

    @property
    def values_per_image(self) -> int:
        """Return the number of values of one image: the width of the network's input."""
        return math.prod(self.shape)

    def scale(
        self,
        images: npt.NDArray[Any],
        dtype: type[np.floating[Any]] = np.float32,
        out: FloatArray | None = None,
    ) -> FloatArray:
        """Return images as inputs.

        Args:
            images: (N, ...) uint8 or float, ``values_per_image`` values each.
            dtype: The dtype of the network's parameters.
            out: (N, values_per_image) of ``dtype``, to write into; a new array otherwise.

        Returns:
            (N, values_per_image) values of ``dtype``, in [0, 1]; ``images`` itself, reshaped, where
            nothing is to be done and no ``out`` is given.
        """
        flat = images.reshape(len(images), self.values_per_image)
        if flat.dtype == np.uint8:
            scaled: FloatArray = np.divide(flat, self.uint8_divisor, out=out, dtype=dtype)
            return scaled
        if out is None:
            return flat.astype(dtype, copy=False)
        out[:] = flat
        return out
