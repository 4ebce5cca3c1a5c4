"""Class labels: the numbers of classes that come by name, and the names of those by number."""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import DatasetError, Labels

MAX_CLASSES: Final = 65_536  # one stray label must not make a billion class labels

_MAX_MISSING: Final = 10  # numbers a label between the lowest and the highest, to be classes too
_INTEGER: Final = re.compile(r"\s*\+?(\d+)(\.0*)?\s*")
_DIGITS: Final = re.compile(r"(\d+)")


class LabelIndex:
    """Codes for labels that come as text, some at a time: 0, 1, ... as they first appear."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the labels that came, by code."""
        return tuple(self._codes)

    def add(self, labels: npt.NDArray[Any]) -> Labels:
        """Return (n,) codes of n labels.

        Raises:
            DatasetError: A label is empty, or there are too many different ones.
        """
        texts, inverse = np.unique(labels, return_inverse=True)
        plain = [plain_label(str(text)) for text in texts.tolist()]
        if "" in plain:
            raise DatasetError("labels: expected a text for each image, got an empty one")
        codes = [self._codes.setdefault(text, len(self._codes)) for text in plain]
        if len(self._codes) > MAX_CLASSES:
            raise DatasetError(
                f"labels: expected at most {MAX_CLASSES} different ones, got more; is this the "
                "column of the labels? --label-column names another"
            )
        return np.array(codes, np.int64)[inverse.reshape(-1)]


def label_numbers(values: npt.NDArray[Any]) -> Labels:
    """Return labels that are the numbers of their classes, as (N,) int64.

    Args:
        values: (N,) or (N, 1) integers.

    Raises:
        DatasetError: They are something else.
    """
    if values.dtype.kind not in "iu":
        raise DatasetError(f"expected integer classes, got {values.dtype}")
    if values.ndim != 1 and values.shape[1:] != (1,):
        raise DatasetError(f"expected shape (N,) or (N, 1), got {values.shape}")
    if values.size and values.max() >= MAX_CLASSES:
        raise DatasetError(f"expected classes below {MAX_CLASSES}, got {values.max()}")
    if values.size and values.min() < 0:
        raise DatasetError(f"expected classes from 0, got {values.min()}")
    return values.reshape(-1).astype(np.int64)


def plain_label(text: str) -> str:
    """Return a label without spaces around it, and a number as an integer is written."""
    match = _INTEGER.fullmatch(text)
    return str(int(match[1])) if match else text.strip()


def class_order(labels: Sequence[str], *, from_zero: bool = False) -> tuple[str, ...]:
    """Return the labels of all classes, class 0 first, from those that came.

    They are in natural order, 2 before 10. Where all are numbers, those between them are classes
    as well, unless these would be many more.

    Args:
        labels: Those that came.
        from_zero: Whether numbers count classes from 0, though none may be of the first.
    """
    if all(label.isascii() and label.isdigit() for label in labels):
        numbers = sorted(int(label) for label in labels)
        first, last = 0 if from_zero else numbers[0], numbers[-1]
        if last - first < _MAX_MISSING * len(numbers):
            numbers = list(range(first, last + 1))
        return tuple(str(number) for number in numbers)
    return tuple(sorted(labels, key=natural_key))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts 2 before 10, and capitals beside small letters."""
    parts = _DIGITS.split(text.casefold())
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
    return [*key, (2, 0, text)]
