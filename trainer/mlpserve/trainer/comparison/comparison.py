"""Comparison of two versions: the answers of both to the same images, and which are right.

Knows neither files nor how the result is shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import DatasetError, Split
from mlpserve.model.weights import Model
from mlpserve.trainer.evaluation import Evaluation, confusion_matrix, evaluate
from mlpserve.trainer.statistics import mcnemar_p_value, paired_difference_interval

_SIGNIFICANT_BELOW: Final = 0.05
_MAX_NAMED: Final = 5
_MAX_SHORT_NAME: Final = 24


@dataclass(frozen=True, eq=False)
class Contender:
    """One of the two versions.

    Attributes:
        name: What it is called, as in ``digits:3``.
        file: Where its weights are.
        file_bytes: How large that file is.
        model: The version.
    """

    name: str
    file: str
    file_bytes: int
    model: Model

    @property
    def parameters(self) -> int:
        """Return how many weights and biases the network has."""
        return sum(array.size for array in self.model.network.parameters)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two versions and what they say of the same images.

    Attributes:
        first: What the second is compared to.
        second: The other version.
        class_labels: What each class is called, in the order of the first version's outputs.
        split: The images.
        data: What these are called.
        said_first: What the first says of them.
        said_second: What the second says of them, its classes in the order of the first's.
    """

    first: Contender
    second: Contender
    class_labels: tuple[str, ...]
    split: Split
    data: str
    said_first: Evaluation
    said_second: Evaluation

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.split)

    @property
    def short_names(self) -> tuple[str, str]:
        """Return what the two are called where there is little room, and the other is near."""
        first, second = (each.model.metadata for each in (self.first, self.second))
        if first.name == second.name and first.version != second.version:
            return f"version {first.version}", f"version {second.version}"
        return _shortened(self.first.name), _shortened(self.second.name)

    @cached_property
    def only_first_right(self) -> npt.NDArray[np.bool_]:
        """Return, as (N,), which images the first alone classifies rightly."""
        return self.said_first.is_right & ~self.said_second.is_right

    @cached_property
    def only_second_right(self) -> npt.NDArray[np.bool_]:
        """Return, as (N,), which images the second alone classifies rightly."""
        return self.said_second.is_right & ~self.said_first.is_right

    @cached_property
    def is_different(self) -> npt.NDArray[np.bool_]:
        """Return, as (N,), of which images the two say different classes."""
        return np.not_equal(self.said_first.predicted, self.said_second.predicted)

    @property
    def both_right(self) -> int:
        """Return how many images both classify rightly."""
        return int((self.said_first.is_right & self.said_second.is_right).sum())

    @property
    def both_wrong(self) -> int:
        """Return how many images neither classifies rightly."""
        return int((~self.said_first.is_right & ~self.said_second.is_right).sum())

    @property
    def disagreements(self) -> tuple[int, int]:
        """Return how many images only the first, and only the second, classifies rightly."""
        return int(self.only_first_right.sum()), int(self.only_second_right.sum())

    @property
    def difference(self) -> float:
        """Return by how much the second's accuracy is above the first's, -1 to 1."""
        only_first, only_second = self.disagreements
        return (only_second - only_first) / len(self)

    @property
    def difference_interval(self) -> tuple[float, float]:
        """Return the 95 % confidence interval of ``difference``."""
        return paired_difference_interval(*self.disagreements, len(self))

    @property
    def p_value(self) -> float:
        """Return how probable such disagreements are where neither is better: McNemar's test."""
        return mcnemar_p_value(*self.disagreements)

    @property
    def is_significant(self) -> bool:
        """Return whether the test speaks for a difference, at the usual level of 5 %."""
        return self.p_value < _SIGNIFICANT_BELOW

    @property
    def has_equal_weights(self) -> bool:
        """Return whether both are the same network."""
        first, second = (each.model.network for each in (self.first, self.second))
        return (first.layer_sizes, first.activations) == (
            second.layer_sizes,
            second.activations,
        ) and all(map(np.array_equal, first.parameters, second.parameters))

    @property
    def confusion_changes(self) -> npt.NDArray[np.int64]:
        """Return, as (K, K), how many more of the row's class the second takes for the column's.

        It has K squared elements.
        """
        return confusion_matrix(self.said_second) - confusion_matrix(self.said_first)


def check_comparable(first: Contender, second: Contender) -> None:
    """Refuse two versions that cannot answer the same question.

    Raises:
        DatasetError: They know other classes, or take images of another shape.
    """
    first_labels, second_labels = (each.model.metadata.class_labels for each in (first, second))
    if set(first_labels) != set(second_labels):
        known = [
            f"only {name} knows {_listed(only)}"
            for name, only in (
                (first.name, _only_in(first_labels, second_labels)),
                (second.name, _only_in(second_labels, first_labels)),
            )
            if only
        ]
        raise DatasetError(
            f"classes: expected two versions that tell apart the same ones, but {', '.join(known)}"
        )
    shapes = [each.model.metadata.input.shape for each in (first, second)]
    is_one_flat = min(map(len, shapes)) == 1
    if shapes[0] != shapes[1] and not (
        is_one_flat and math.prod(shapes[0]) == math.prod(shapes[1])
    ):
        raise DatasetError(
            f"images: expected two versions that take the same ones, but {first.name} takes "
            f"{_by(shapes[0])} values, {second.name} {_by(shapes[1])}"
        )


def compare(first: Contender, second: Contender, split: Split, data: str) -> Comparison:
    """Run both versions on all images of a split.

    Args:
        first: What the second is compared to.
        second: The other version.
        split: The images, labelled by the classes of the first.
        data: What these are called.

    Raises:
        DatasetError: See ``check_comparable``; or the images are not what a version takes.
    """
    check_comparable(first, second)
    labels = first.model.metadata.class_labels
    said_first, said_second = _evaluated(first, split), _evaluated(second, split)
    places = {label: place for place, label in enumerate(second.model.metadata.class_labels)}
    order = [places[label] for label in labels]
    if order != list(range(len(labels))):
        said_second = Evaluation(said_second.probabilities[:, order], split.labels)
    return Comparison(first, second, labels, split, data, said_first, said_second)


def _evaluated(contender: Contender, split: Split) -> Evaluation:
    model = contender.model
    try:
        return evaluate(model.network, model.metadata.input, split)
    except DatasetError as error:
        raise DatasetError(f"{contender.name}: {error}") from error


def _shortened(name: str) -> str:
    # What tells two of them apart is mostly at the end.
    return name if len(name) <= _MAX_SHORT_NAME else f"…{name[1 - _MAX_SHORT_NAME :]}"


def _only_in(labels: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [label for label in labels if label not in known]


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MAX_NAMED} more" if len(labels) > _MAX_NAMED else ""
    return ", ".join(map(repr, labels[:_MAX_NAMED])) + more


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
