"""Class labels: the numbers of classes that come by name, and the names of those by number."""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import DatasetError, Labels

MAX_CLASSES: Final = 65_536  # one stray label must not make a billion class labels

_INTEGER: Final = re.compile(r"\s*\+?(\d+)(\.0*)?\s*")
_DIGITS: Final = re.compile(r"(\d+)")


class LabelIndex:
    """Class numbers for labels that come as text, some at a time.

    ``add`` gives each label a code, in the order in which they first appear; when all are known,
    ``classes`` says what the classes are called, and which one each code is.
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

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

    def classes(self, names: Sequence[str] | None = None) -> tuple[tuple[str, ...], Labels]:
        """Return the class labels, class 0 first, and the class of each code.

        Args:
            names: The class labels, if the data says so; else those that came, in natural order
                (2 before 10). Numbers that came make classes of the numbers between them as well,
                where most are there.
        """
        labels = tuple(names) if names is not None else class_order(tuple(self._codes))
        numbers = {label: number for number, label in enumerate(labels)}
        unknown = [label for label in self._codes if label not in numbers]
        if unknown:
            raise DatasetError(
                f"labels: expected one of {', '.join(labels)}, got {', '.join(unknown)}"
            )
        return labels, np.array([numbers[label] for label in self._codes], np.int64)


def plain_label(text: str) -> str:
    """Return a label without spaces around it, and a number as an integer is written."""
    match = _INTEGER.fullmatch(text)
    return str(int(match[1])) if match else text.strip()


def class_order(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of all classes, in natural order, from those that came."""
    if all(label.isascii() and label.isdigit() for label in labels):
        numbers = sorted(int(label) for label in labels)
        first, last = numbers[0], numbers[-1]
        if last - first < 2 * len(numbers):
            numbers = list(range(first, last + 1))
        return tuple(str(number) for number in numbers)
    return tuple(sorted(labels, key=natural_key))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts 2 before 10, and capitals beside small letters."""
    parts = _DIGITS.split(text.casefold())
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
    return [*key, (2, 0, text)]
