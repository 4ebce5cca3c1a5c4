"""Raw data sets: images and labels as a format has them, and what all formats do alike to them.

A format's reader gives ``RawData``, of which ``finishing`` makes a data set. Knows no file format.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import DatasetError, Labels
from mlpserve.datasets.disk_images import DiskImages

logger = logging.getLogger(__name__)

Array: TypeAlias = npt.NDArray[Any]

_PLANE: Final = 2  # dimensions of a grey image
_BYTE: Final = 255
_T = TypeVar("_T")


@dataclass(frozen=True)
class ReadOptions:
    """What is said about data beyond its place; each has a flag of that name.

    Attributes:
        test_data: The name or path of other data, whose images are the test images; None to take
            those of the data itself.
        label_column: The column of a table that holds the labels; None to find it by its name.
        shape: The shape of one image; None to take that which the data has.
        transpose: Whether rows and columns of the images are swapped.
        skip_unreadable: Whether pictures that cannot be read are left out, and not an error.
        cache_dir: Where a table that is larger than memory is kept as an array; None for beside it.
    """

    test_data: str | None = None
    label_column: str | None = None
    shape: tuple[int, ...] | None = None
    transpose: bool = False
    skip_unreadable: bool = False
    cache_dir: Path | None = None


NO_OPTIONS: Final = ReadOptions()


@dataclass(frozen=True, eq=False)
class RawSplit:
    """Images with their labels.

    Attributes:
        images: (N, ...) uint8, int32 or float32, whatever their range.
        codes: (N,) int64 labels; ``RawData.label_texts`` says what they mean.
    """

    images: Array
    codes: Labels


@dataclass(frozen=True, eq=False)
class RawData:
    """What a format's reader found.

    Attributes:
        name: What the data is called.
        train: What there is to learn from; None if there is none, or only the test images were
            wanted, and are there.
        test: The test images; None if there are none.
        label_texts: What each code of the labels stands for; None if the codes are the labels.
        class_labels: What the classes are called, class 0 first, if the data says so.
        from_zero: Whether labels that are numbers count classes from 0, though none may be of the
            first, as releases before the other formats had it.
    """

    name: str
    train: RawSplit | None
    test: RawSplit | None
    label_texts: tuple[str, ...] | None = None
    class_labels: tuple[str, ...] | None = None
    from_zero: bool = False


def arranged(images: Array, options: ReadOptions, *, where: str = "") -> Array:
    """Return images in the shape in which they are learned from.

    A last, or first, dimension of one colour is dropped, and values without a shape become a
    square, if they can: so all images of one plane are (height, width).

    Args:
        images: (N, ...), at least one.
        options: What was asked for.
        where: What messages call them; "" where they are called so already.

    Raises:
        DatasetError: They cannot be brought into the shape.
    """
    place = f"{where}: " if where else ""
    if images.ndim < _PLANE or not images.size:
        return images  # which a Split refuses in its own words
    shape = options.shape or _found_shape(images.shape[1:])
    if math.prod(shape) != math.prod(images.shape[1:]):
        raise DatasetError(
            f"{place}expected {math.prod(shape)} values an image, for the shape {_by(shape)}, "
            f"got {math.prod(images.shape[1:])} of shape {_by(images.shape[1:])}"
        )
    images = images.reshape(len(images), *shape)
    if not options.transpose:
        return images
    if len(shape) < _PLANE:
        raise DatasetError(
            f"{place}--transpose: expected images of rows and columns, got {shape[0]} values "
            "each; say their --shape, as in 28x28"
        )
    if isinstance(images, DiskImages):
        raise DatasetError(
            f"{place}--transpose: {images.nbytes / 1e9:.1f} GB of images stay as they are on "
            "disk; save them turned, numpy.swapaxes(images, 1, 2)"
        )
    return np.ascontiguousarray(images.swapaxes(1, 2))


def narrowed(images: Array) -> Array:
    """Return images in the narrowest of uint8, int32 and float32 that holds their values.

    Raises:
        DatasetError: They are no numbers, or are too large.
    """
    if images.dtype.kind == "f":
        # What float32 cannot hold becomes infinite, and a Split refuses that.
        with np.errstate(over="ignore"):
            return _converted(images, np.float32)
    if images.dtype.kind == "b" or images.dtype == np.uint8:
        return _converted(images, np.uint8)
    if images.dtype.kind not in "iu":
        raise DatasetError(f"expected integers or floats, got {images.dtype}")
    if not images.size or (images.min() >= 0 and images.max() <= _BYTE):
        return _converted(images, np.uint8)
    limits = np.iinfo(np.int32)
    if images.min() < limits.min or images.max() > limits.max:
        raise DatasetError(f"expected integers of 32 bits, got {images.min()} to {images.max()}")
    return _converted(images, np.int32)


def _converted(images: Array, dtype: type[np.generic]) -> Array:
    if isinstance(images, DiskImages):
        return images.astype(dtype)
    return np.ascontiguousarray(images, dtype)


def splits_of(found: Mapping[str, _T]) -> tuple[list[_T], _T | None]:
    """Return what to learn from and what to test by, of the splits that data is published in.

    A validation split is the test split where there is no other, and else learned from, because
    the trainer holds out its own.

    Args:
        found: By the names train, validation, test, and "" for what has none.
    """
    train = [found[name] for name in ("", "train") if name in found]
    if "test" in found:
        return [*train, *([found["validation"]] if "validation" in found else [])], found["test"]
    return train, found.get("validation")


def joined(splits: Sequence[RawSplit]) -> RawSplit:
    """Return splits as one, the first first.

    Raises:
        DatasetError: Their images are of different shapes.
    """
    if len(splits) == 1:
        return splits[0]
    for split in splits[1:]:
        if split.images.shape[1:] != splits[0].images.shape[1:]:
            raise DatasetError(
                f"images: expected one shape, got {splits[0].images.shape[1:]} and "
                f"{split.images.shape[1:]}"
            )
    if any(isinstance(split.images, DiskImages) for split in splits):
        logger.info("the validation images are left out, because the others are larger than memory")
        return splits[0]
    images = np.concatenate([split.images for split in splits])
    return RawSplit(narrowed(images), np.concatenate([split.codes for split in splits]))


def split_name(name: str) -> str:
    """Return which split a name speaks of, as splits are called by ``splits_of``."""
    words = {word for word in _words(name) if word in _SPLIT_WORDS}
    return _SPLIT_WORDS[min(words, key=list(_SPLIT_WORDS).index)] if words else ""


_SPLIT_WORDS: Final = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test", "t10k": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip


def _words(name: str) -> list[str]:
    return "".join(sign if sign.isalnum() else " " for sign in name.lower()).split()


def _found_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    side = math.isqrt(shape[0])
    if len(shape) == 1 and side**2 == shape[0] and side > 1:
        return side, side
    if len(shape) == _PLANE + 1 and 1 in (shape[0], shape[-1]):
        return shape[:-1] if shape[-1] == 1 else shape[1:]
    return shape


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
