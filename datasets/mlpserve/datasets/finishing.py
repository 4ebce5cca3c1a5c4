"""Finished data sets: labels of raw data become class numbers, and test images are held out."""

import logging
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mlpserve.datasets.class_labels import class_order
from mlpserve.datasets.dataset import Dataset, DatasetError, Labels, Split, check_class_labels
from mlpserve.datasets.disk_images import selected
from mlpserve.datasets.raw import Array, RawData, RawSplit

logger = logging.getLogger(__name__)

HELD_OUT_SHARE: Final = 0.1
HELD_OUT_SEED: Final = 0
_HELD_OUT: Final = f"{100 * HELD_OUT_SHARE:g} % of each class, held out (seed {HELD_OUT_SEED})"
_MAX_NAMED: Final = 5


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
