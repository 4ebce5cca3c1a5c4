"""Raw data sets: images and labels as a format has them, and what makes a data set of them.

A format's reader gives ``RawData``. Here its labels become class numbers, and where it has no test
images, some are held out. Knows no file format.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.class_labels import class_order
from mlpserve.datasets.dataset import Dataset, DatasetError, Labels, Split, check_class_labels
from mlpserve.datasets.disk_images import DiskImages, selected

logger = logging.getLogger(__name__)

Array: TypeAlias = npt.NDArray[Any]

HELD_OUT_SHARE: Final = 0.1
HELD_OUT_SEED: Final = 0
_HELD_OUT: Final = f"{100 * HELD_OUT_SHARE:g} % of each class, held out (seed {HELD_OUT_SEED})"
_PLANE: Final = 2  # dimensions of a grey image
_BYTE: Final = 255
_MAX_NAMED: Final = 5
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


def finished(raw: RawData, other: RawData | None = None) -> Dataset:
    """Return the data set that raw data makes.

    Args:
        raw: The data.
        other: Data whose images are the test images, all of them if it has no test split; None to
            take the test images of ``raw``, or, where it has none, hold out some.

    Raises:
        DatasetError: The images do not fit together, or the class labels are empty or equal.
    """
    train, test, tested = raw.train or raw.test, raw.test, raw
    origin = ""
    if train is None:
        raise DatasetError("expected images, got none")
    if other is not None:
        test, tested = other.test or other.train, other
        origin = f"{'all' if other.test is None else 'test images'} of {other.name}"
    elif test is None or raw.train is None:
        train, test = _held_out(train)
        origin = _HELD_OUT
    if test is None:
        raise DatasetError("expected test images, got none")
    class_labels = raw.class_labels or class_order(
        tuple(
            {text: None for part, of in ((train, raw), (test, tested)) for text in _used(part, of)}
        ),
        from_zero=raw.from_zero,
    )
    check_class_labels(class_labels)
    dtype = _common_dtype(train.images, test.images)
    return Dataset(
        name=raw.name,
        class_labels=class_labels,
        train=_split(train, raw, class_labels, dtype),
        test=_split(test, tested, class_labels, dtype),
        test_origin=origin,
    )


def finished_test(raw: RawData, class_labels: Sequence[str] | None) -> Split:
    """Return the test split that raw data makes, or what is held out of it for one.

    Args:
        raw: The data.
        class_labels: What the classes of a network are called, so that the labels become their
            numbers; None to number them as the data does.

    Raises:
        DatasetError: A label is none of the network's, or there are no images.
    """
    test = raw.test
    if test is None:
        if raw.train is None:
            raise DatasetError("expected test images, got none")
        logger.info("%s has no test images of its own: %s, are taken", raw.name, _HELD_OUT)
        test = _held_out(raw.train)[1]
    if class_labels is None and raw.label_texts is None:
        return Split(test.images, test.codes)
    labels = class_labels or raw.class_labels or class_order(_used(test, raw))
    return _split(test, raw, tuple(labels), test.images.dtype)


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


def _held_out(split: RawSplit) -> tuple[RawSplit, RawSplit]:
    """Return what is left of a split, and a share of each class that is held out of it.

    A class of one image is left whole, so that there is something to learn it from.
    """
    order = np.random.default_rng(HELD_OUT_SEED).permutation(len(split.codes))
    order = order[np.argsort(split.codes[order], kind="stable")]  # by class, random within each
    _, starts, counts = np.unique(split.codes[order], return_index=True, return_counts=True)
    shares = np.maximum(np.rint(HELD_OUT_SHARE * counts).astype(np.int64), counts > 1)
    if not shares.sum():
        raise DatasetError(
            f"expected two images of a class at least, so that one can be held out to test by, got "
            f"{len(split.codes)} in all; or name test images with --test-data"
        )
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    is_held = np.zeros(len(order), np.bool_)
    is_held[order[rank < np.repeat(shares, counts)]] = True
    return _taken(split, np.flatnonzero(~is_held)), _taken(split, np.flatnonzero(is_held))


def _taken(split: RawSplit, rows: Labels) -> RawSplit:
    return RawSplit(selected(split.images, rows), split.codes[rows])


def _used(split: RawSplit, raw: RawData) -> tuple[str, ...]:
    """Return the labels that occur in a split."""
    return tuple(_text(raw, code) for code in np.unique(split.codes).tolist())


def _text(raw: RawData, code: int) -> str:
    texts = raw.label_texts
    if texts is None:
        return str(code)
    if not 0 <= code < len(texts):
        raise DatasetError(f"labels: {len(texts)} classes have a name, but a label is {code}")
    return texts[code]


def _split(
    split: RawSplit, raw: RawData, class_labels: tuple[str, ...], dtype: np.dtype[Any] | None
) -> Split:
    codes, inverse = np.unique(split.codes, return_inverse=True)
    texts = [_text(raw, code) for code in codes.tolist()]
    numbers = _class_numbers(texts, class_labels, are_texts=raw.label_texts is not None)
    images = split.images if dtype in (None, split.images.dtype) else split.images.astype(dtype)
    return Split(images, numbers[inverse.reshape(-1)])


def _class_numbers(texts: list[str], class_labels: tuple[str, ...], *, are_texts: bool) -> Labels:
    """Return the class of each label: by its name, or, if none is a name, by its number."""
    numbers = {label: number for number, label in enumerate(class_labels)}
    unknown = [text for text in texts if text not in numbers]
    if unknown and all(text.isdecimal() for text in texts):
        largest = max(int(text) for text in texts)
        if largest >= len(class_labels):
            raise DatasetError(
                f"labels: expected the {len(class_labels)} classes of the model, got a label "
                f"{largest}"
            )
        if are_texts:  # as in a table; else they were numbers of classes from the beginning
            logger.warning(
                "labels: numbers stand for the classes in order: 0 is %s", class_labels[0]
            )
        return np.array([int(text) for text in texts], np.int64)
    if unknown:
        more = "" if len(unknown) <= _MAX_NAMED else f" and {len(unknown) - _MAX_NAMED} more"
        raise DatasetError(
            f"labels: expected one of {', '.join(class_labels[:_MAX_NAMED])}"
            f"{', ...' if len(class_labels) > _MAX_NAMED else ''} "
            f"({len(class_labels)} classes), got {', '.join(unknown[:_MAX_NAMED])}{more}"
        )
    return np.array([numbers[text] for text in texts], np.int64)


def _common_dtype(first: Array, second: Array) -> np.dtype[Any] | None:
    """Return the dtype of two arrays of integers together; None if one of them has floats."""
    if np.float32 in (first.dtype, second.dtype):
        return None
    return np.result_type(first.dtype, second.dtype)
