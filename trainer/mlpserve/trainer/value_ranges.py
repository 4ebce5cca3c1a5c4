"""Range of the values of a data set: found or stated, told, and doubted where it looks wrong."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import Dataset, DatasetError
from mlpserve.datasets.dataset import Images
from mlpserve.datasets.disk_images import chunks
from mlpserve.datasets.progress import progress
from mlpserve.model.errors import ValueRangeError
from mlpserve.model.inputs import UINT8_DIVISOR, ValueRange, number_text

# The highest values with which data are usually written, and the kind of data. What has none above
# 63 is taken for data of fewer than 8 bits: as 8 bits, it would be too dark to see anything.
_HIGHEST: Final[Mapping[float, str]] = {
    1: "1 bit",
    3: "2 bits",
    7: "3 bits",
    15: "4 bits",
    16: "as the digits of scikit-learn have them",
    31: "5 bits",
    63: "6 bits",
    UINT8_DIVISOR: "8 bits",
    1023: "10 bits",
    4095: "12 bits",
    16383: "14 bits",
    65535: "16 bits",
}
_ROUNDING: Final = 0.01  # beyond 1: nobody meant such a range
_STEPS: Final = 100  # of such a part of a width that was found its ends are multiples
_CONSTANT_SHARE: Final = 0.9
_ONE_BYTE_STEP: Final = float(np.float32(1 / UINT8_DIVISOR))


@dataclass(frozen=True)
class Found:
    """The range that a data set's values are taken for.

    Attributes:
        value_range: The range; None for bytes or shares, as ``InputSpec`` has it.
        text: What there is, and what it was taken for, as a line.
        warnings: What looks like a mistake, and what to do, a sentence each.
    """

    value_range: ValueRange | None
    text: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Values:
    """The values of a split.

    Attributes:
        low: (...) the lowest value at each place of an image.
        high: (...) the highest.
        is_whole: Whether they are integers.
    """

    low: npt.NDArray[Any]
    high: npt.NDArray[Any]
    is_whole: bool

    @property
    def lowest(self) -> float:
        return float(self.low.min())

    @property
    def highest(self) -> float:
        return float(self.high.max())

    @property
    def constant_share(self) -> float:
        """Return the share of places at which all images have the same value."""
        return float(np.mean(self.low == self.high))

    def __str__(self) -> str:
        return f"{number_text(self.low.min())} to {number_text(self.high.max())}"


def find_range(dataset: Dataset, stated: ValueRange | None) -> Found:
    """Return the range that the values of a data set are taken for.

    Args:
        dataset: The data set.
        stated: The range that it is said to have; None to find it.

    Raises:
        DatasetError: There are values beyond what is stated, or no range has them all.
    """
    train, test = (_values(split.images) for split in (dataset.train, dataset.test))
    lowest, highest = min(train.lowest, test.lowest), max(train.highest, test.highest)
    if stated is None:
        taken = _taken(lowest, highest, is_whole=train.is_whole)
    else:
        for name, values in (("training", train), ("test", test)):
            if not (stated.low <= values.lowest and values.highest <= stated.high):
                raise DatasetError(
                    f"--range: expected a range that has all values, got {stated}, but the {name} "
                    f"images have {values}"
                )
        taken = stated
    doubts = tuple(_doubts(train, test, taken, is_stated=stated is not None))
    kind = _HIGHEST.get(taken.high) if taken.low == 0 else None
    if not train.is_whole and taken.high == 1:
        kind = None
    text = f"values from {train}, taken for {taken}{f' ({kind})' if kind else ''}"
    if stated is None and _as_range(taken, is_whole=train.is_whole) is not None:
        text += "; --range LO,HI says another"
    return Found(_as_range(taken, is_whole=train.is_whole), text, doubts)


def _values(images: Images) -> _Values:
    low = high = images[0]
    with progress("looking for the range of the values") as note:
        done = 0
        for chunk in chunks(images):
            low = np.minimum(low, chunk.min(axis=0))
            high = np.maximum(high, chunk.max(axis=0))
            done += len(chunk)
            note(done, len(images))
    return _Values(low, high, is_whole=images.dtype.kind in "iu")


def _as_range(taken: ValueRange, *, is_whole: bool) -> ValueRange | None:
    """Return None for a range that data of this type have anyway."""
    usual = ValueRange(0, UINT8_DIVISOR if is_whole else 1)
    return None if taken == usual else taken


def _taken(lowest: float, highest: float, *, is_whole: bool) -> ValueRange:
    """Return the range that is usual for values between these.

    Raises:
        DatasetError: There is none.
    """
    low, high = 0.0, float(highest)
    if lowest < 0:
        low, high = (-1, 1) if lowest >= -1 and highest <= 1 else _rounded(lowest, highest)
    elif highest == 0:
        high = UINT8_DIVISOR if is_whole else 1
    elif highest > UINT8_DIVISOR and lowest > highest / 2:
        low, high = _rounded(lowest, highest)
    elif is_whole or not 1 < highest < 1 + _ROUNDING:
        high = next((usual for usual in _HIGHEST if highest <= usual), highest)
    try:
        return ValueRange(low, high)
    except ValueRangeError as error:
        raise DatasetError(f"images: {error}") from error


def _rounded(lowest: float, highest: float) -> tuple[float, float]:
    """Return a range that is a little wider, with fewer digits; from 0 for one value alone."""
    if lowest == highest:
        return min(lowest, 0), max(highest, 0)
    step = 10 ** math.floor(math.log10((highest - lowest) / _STEPS))
    return math.floor(lowest / step) * step, math.ceil(highest / step) * step


def _doubts(train: _Values, test: _Values, taken: ValueRange, *, is_stated: bool) -> Iterator[str]:
    """Yield what looks like a mistake."""
    only = number_text(train.high.max())
    if train.lowest == train.highest:
        yield (
            f"all values of the training images are {only}, so there is nothing to tell them apart "
            "by: look at what wrote the data"
        )
        return
    if not is_stated:
        yield from _doubts_of_range(train, test, taken)
    if train.constant_share > _CONSTANT_SHARE:
        yield (
            f"{100 * train.constant_share:.1f} % of the values of an image are the same in all "
            "training images: were they read in their right shape, and are they as large as they "
            "need to be?"
        )


def _doubts_of_range(train: _Values, test: _Values, taken: ValueRange) -> Iterator[str]:
    if not train.is_whole and train.lowest >= 0 and train.highest <= _ONE_BYTE_STEP:
        highest = number_text(train.high.max())
        yield (
            f"the values of the training images are {train}, as if bytes had been divided by "
            f"{UINT8_DIVISOR} twice: divide them once, or say --range 0,{highest}"
        )
    if taken.low == 0 and 1 < taken.high < 1 + _ROUNDING:
        yield (
            f"the values are {train}, a little beyond 1: numpy.clip(images, 0, 1) removes what "
            f"rounding left; as they are, the model takes {taken}, and neither bytes nor shares"
        )
    usual = _taken(train.lowest, train.highest, is_whole=train.is_whole)
    if test.lowest < usual.low or test.highest > usual.high:
        yield (
            f"the training images have values from {train}, and the test images from {test}: scale "
            f"both alike; or, if all is right, say the range with --range {_stated(taken)}"
        )


def _stated(taken: ValueRange) -> str:
    return ",".join(str(taken).split(" to "))
