"""Inputs of a network: images, flattened and scaled to 0..1."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import FloatArray
from mlpserve.model.errors import ValueRangeError

UINT8_DIVISOR: Final = 255
_UINT8: Final = np.dtype("u1")
_FLOAT32: Final = np.dtype("<f4")  # little-endian, whatever the machine is
_MAX_MAGNITUDE: Final = 1e12
_MIN_WIDTH: Final = float(np.float32(1e-6))
# Beyond it, float32 would no longer tell the values of a narrow range apart.
_MAX_MAGNITUDE_PER_WIDTH: Final = 100
# A value that is so little beyond a range is there by rounding.
_ROUNDING: Final = 1e-3


@dataclass(frozen=True)
class ValueRange:
    """The range of the values of images, where it is neither bytes nor shares; see ``InputSpec``.

    Attributes:
        low: The lowest value, a float32.
        high: The highest value, a float32.

    Raises:
        ValueRangeError: It is too narrow, too far from 0, or upside down.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            object.__setattr__(self, "low", float(np.float32(self.low)))
            object.__setattr__(self, "high", float(np.float32(self.high)))
        farthest = max(abs(self.low), abs(self.high))
        # Written so that a NaN, which compares false, is refused as well.
        if not (self.width >= _MIN_WIDTH and farthest <= _MAX_MAGNITUDE):
            raise ValueRangeError(
                f"expected a lowest and a highest value at least {_MIN_WIDTH:g} apart, none beyond "
                f"{_MAX_MAGNITUDE:g}, got {self}"
            )
        if not farthest <= _MAX_MAGNITUDE_PER_WIDTH * self.width:
            raise ValueRangeError(
                f"expected a range at least a {_MAX_MAGNITUDE_PER_WIDTH}th as wide as its values "
                f"are far from 0, got {self}; subtract the lowest value from all"
            )

    @property
    def width(self) -> float:
        """Return how far the highest value is from the lowest."""
        return self.high - self.low

    def __str__(self) -> str:
        return f"{number_text(np.float32(self.low))} to {number_text(np.float32(self.high))}"


@dataclass(frozen=True)
class InputSpec:
    """The images that a network takes, and how their values become inputs from 0 to 1.

    Without a range of values, integers are bytes, from 0 to 255, and are divided by 255;
    floating-point values are shares, from 0 to 1, and are taken as they are. With one, the values
    of any data type are those of the range: its lowest becomes 0, and its highest 1.

    Attributes:
        shape: The shape of one image, before it is flattened.
        uint8_divisor: Integers are divided by this, without a range.
        value_range: The range of values; None for bytes and shares.
    """

    shape: tuple[int, ...]
    uint8_divisor: int = UINT8_DIVISOR
    value_range: ValueRange | None = None

    @cached_property
    def values_per_image(self) -> int:
        """Return the number of values of one image: the width of the network's input."""
        return math.prod(self.shape)

    @property
    def growth(self) -> float:
        """Return how many times larger than with scaled inputs a sum may get with unscaled ones.

        Whoever folds the scaling into the first layer, as ``Layer.unscaled`` does, divides weights
        by the width w, multiplies them with values of up to ``m = max(|low|, |high|)``, and adds to
        the bias up to ``m / w`` times their sum. So no sum is more than ``1 + 2 m / w`` times, and
        no weight more than ``1 / w`` times, what it was.
        """
        if self.value_range is None:
            return 1
        low, high, width = self.value_range.low, self.value_range.high, self.value_range.width
        return max(1, 1 / width) * (1 + 2 * max(abs(low), abs(high)) / width)

    @property
    def wire_dtypes(self) -> tuple[np.dtype[Any], ...]:
        """Return the data types that have all values: uint8, unless it lacks some, and float32."""
        low, high = self.limits(_UINT8)
        return (_UINT8, _FLOAT32) if low >= 0 and high <= UINT8_DIVISOR else (_FLOAT32,)

    def limits(self, dtype: np.dtype[Any]) -> tuple[float, float]:
        """Return the lowest and the highest value that images of a data type may have."""
        if self.value_range is not None:
            return self.value_range.low, self.value_range.high
        return (0, UINT8_DIVISOR) if dtype.kind in "iu" else (0, 1)

    def scaling(self, dtype: np.dtype[Any]) -> tuple[float, float]:
        """Return what to subtract from values of a data type, and what to divide them by then."""
        if self.value_range is not None:
            return self.value_range.low, self.value_range.width
        return 0, (self.uint8_divisor if dtype.kind in "iu" else 1)

    def scale(
        self,
        images: npt.NDArray[Any],
        dtype: type[np.floating[Any]] = np.float32,
        out: FloatArray | None = None,
    ) -> FloatArray:
        """Return images as inputs.

        Args:
            images: (N, ...) integers or floats, ``values_per_image`` values each.
            dtype: The dtype of the network's parameters.
            out: (N, values_per_image) of ``dtype``, to write into; a new array otherwise.

        Returns:
            (N, values_per_image) values of ``dtype``, in [0, 1]; ``images`` itself, reshaped, where
            nothing is to be done and no ``out`` is given.
        """
        flat = images.reshape(len(images), self.values_per_image)
        offset, divisor = self.scaling(flat.dtype)
        if offset or divisor != 1:
            scaled: FloatArray
            if not offset:
                scaled = np.divide(flat, divisor, out=out, dtype=dtype)
            else:
                scaled = np.subtract(flat, offset, out=out, dtype=dtype)
                scaled /= dtype(divisor)
            return scaled
        if out is None:
            return flat.astype(dtype, copy=False)
        out[:] = flat
        return out

    def problem(
        self, values: npt.NDArray[Any], datatype: str = "", dtype: np.dtype[Any] | None = None
    ) -> str | None:
        """Return which values cannot be scaled, and what to do; None where all can be.

        Args:
            values: At least one.
            datatype: What the caller calls their data type; NumPy's name otherwise.
            dtype: What they are said to be, where the array has room for more.
        """
        low, high = self.limits(values.dtype)
        if values.dtype.kind in "iu":
            kind = np.iinfo(dtype or values.dtype)
            low, high = max(low, kind.min), min(high, kind.max)
            if (low, high) == (kind.min, kind.max) and dtype in (None, values.dtype):
                return None
        lowest, highest = values.min(), values.max()
        # Written so that a NaN, which compares false, is refused as well.
        if lowest >= low and highest <= high:
            return None
        expected = f"expected {datatype or values.dtype.name} values from {_limits_text(low, high)}"
        if np.isnan(lowest):
            return f"{expected}, got NaN"
        got = f"{number_text(lowest)} to {number_text(highest)}"
        return f"{expected}, got {got}{self._hint(values.dtype, float(lowest), float(highest))}"

    def _hint(self, dtype: np.dtype[Any], lowest: float, highest: float) -> str:
        low, high = self.limits(dtype)
        slack = _ROUNDING * (high - low)
        if dtype.kind == "f" and lowest >= low - slack and highest <= high + slack:
            return "; numpy.clip removes what rounding left beyond them"
        if self.value_range is not None:
            return "; scale them as those were that the model learned from"
        if dtype.kind == "f" and lowest >= 0 and highest <= np.iinfo(np.uint8).max:
            return "; values up to 255 are sent as uint8, or divided by 255"
        return ""


BYTES_OR_SHARES: Final = InputSpec(())  # of any shape


def number_text(value: np.generic) -> str:
    """Return a NumPy scalar in as few digits as tell it from its neighbours."""
    return str(value).removesuffix(".0")


def _limits_text(low: float, high: float) -> str:
    return f"{number_text(np.float32(low))} to {number_text(np.float32(high))}"
