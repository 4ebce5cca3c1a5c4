"""Evaluation of a network on a split: accuracy and confusions.

Knows neither how the network was trained nor how the results are shown.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import DatasetError, Split
from mlpserve.datasets.progress import progress
from mlpserve.model.activations import FloatArray
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.learning.backprop import LOG_OFFSET, Labels

_CHUNK_ROWS: Final = 1000  # at a time: what stays in the processor's cache


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The answers of a network to a split, beside the truth; checked when it is made.

    Attributes:
        probabilities: (N, K) float32, each row sums to 1.
        labels: (N,) true classes, each from 0 to K - 1.

    Raises:
        DatasetError: There is not one label for each row, or no output for a label.
    """

    probabilities: npt.NDArray[np.float32]
    labels: Labels

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.probabilities),):
            raise DatasetError(
                f"labels: expected one for each of the {len(self.probabilities)} images, "
                f"got shape {self.labels.shape}"
            )
        if self.labels.max() >= self.class_count:
            raise DatasetError(
                f"labels: the network knows {self.class_count} classes, from 0, "
                f"but a label is {self.labels.max()}"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def class_count(self) -> int:
        """Return K, the number of classes that the network knows."""
        return int(self.probabilities.shape[1])

    @cached_property
    def predicted(self) -> Labels:
        """Return the (N,) most probable classes; of equal ones, the first."""
        predicted: Labels = self.probabilities.argmax(axis=1).astype(np.int64, copy=False)
        return predicted

    @cached_property
    def confidences(self) -> npt.NDArray[np.float32]:
        """Return the (N,) probabilities of the classes in ``predicted``."""
        return self.probabilities[np.arange(len(self)), self.predicted]

    @property
    def is_right(self) -> npt.NDArray[np.bool_]:
        """Return, as (N,), whether each image is classified rightly."""
        return np.equal(self.predicted, self.labels)

    @property
    def accuracy(self) -> float:
        """Return the share of the images classified rightly, 0 to 1."""
        return float(self.is_right.mean())

    @property
    def cross_entropy(self) -> float:
        """Return the mean of -log of the true classes' probabilities, in nats, as training has it.

        A probability of 0 counts as 1e-8, so the mean is finite.
        """
        return _cross_entropy(self.of_truth)

    @property
    def of_truth(self) -> npt.NDArray[np.float32]:
        """Return the (N,) probabilities of the true classes."""
        return self.probabilities[np.arange(len(self)), self.labels]


def chance_accuracy(evaluation: Evaluation) -> float:
    """Return the share of the images that are of the most frequent class, 0 to 1."""
    return float(np.bincount(evaluation.labels).max() / len(evaluation))


def is_at_chance(evaluation: Evaluation) -> bool:
    """Return whether a network does no better than one that always names the most frequent class.

    Luck is allowed for: two standard deviations of guesses that are right so often, at most 5 %.
    """
    chance = chance_accuracy(evaluation)
    luck = min(0.05, 2 * math.sqrt(chance * (1 - chance) / len(evaluation)))
    return chance < 1 and evaluation.accuracy < min(1, chance + luck)


def evaluate(network: Network, spec: InputSpec, split: Split) -> Evaluation:
    """Run a network on all images of a split.

    Raises:
        DatasetError: The images or labels of the split are not the network's.
    """
    probabilities = np.empty((len(split), network.layer_sizes[-1]), np.float32)
    for rows, inputs in input_chunks(network, spec, split):
        probabilities[rows] = network.probabilities(inputs)
    return Evaluation(probabilities, split.labels)


@dataclass(frozen=True)
class Scores:
    """The figures of an ``Evaluation`` that need no more memory than one number an image.

    Attributes:
        accuracy: The share of the images classified rightly, 0 to 1.
        cross_entropy: As ``Evaluation.cross_entropy``, in nats.
    """

    accuracy: float
    cross_entropy: float


def scores(network: Network, spec: InputSpec, split: Split) -> Scores:
    """Return the figures of ``evaluate``, to the bit, without keeping all probabilities.

    Raises:
        DatasetError: The images or labels of the split are not the network's.
    """
    correct, of_truth = 0, np.empty(len(split), np.float32)
    for rows, inputs in input_chunks(network, spec, split):
        probabilities = network.probabilities(inputs).astype(np.float32, copy=False)
        found = Evaluation(probabilities, split.labels[rows])
        correct += int(np.count_nonzero(found.is_right))
        of_truth[rows] = found.of_truth
    return Scores(correct / len(split), _cross_entropy(of_truth))


def input_chunks(
    network: Network, spec: InputSpec, split: Split
) -> Iterator[tuple[slice, FloatArray]]:
    """Yield the images of a split as inputs, some rows at a time, and which rows they are.

    Raises:
        DatasetError: The images have another number of values than the network takes, or other
            values.
    """
    shape = split.images.shape[1:]
    if math.prod(shape) != spec.values_per_image:
        raise DatasetError(f"images: the network takes images of {spec.shape}, got {shape}")
    dtype = network.layers[0].weights.dtype.type
    with progress("evaluating") as note:
        for start in range(0, len(split), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            images = split.images[rows]
            if (problem := spec.problem(images)) is not None:
                raise DatasetError(f"images: {problem}")
            yield rows, spec.scale(images, dtype)
            note(start, len(split))


def _cross_entropy(of_truth: npt.NDArray[np.float32]) -> float:
    return float(-np.log(of_truth.astype(np.float64) + LOG_OFFSET).mean())


def confusion_matrix(evaluation: Evaluation) -> npt.NDArray[np.int64]:
    """Return, as (K, K), how many images of the row's class were taken for the column's.

    It has K squared elements; where K is large, ask ``confusions``.
    """
    count = evaluation.class_count
    pairs = evaluation.labels * count + evaluation.predicted
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


@dataclass(frozen=True)
class Confusion:
    """A confusion of two classes: images of one were taken for the other.

    Attributes:
        truth: The class that they are of.
        predicted: The class that they were taken for.
        count: How many there are, at least 1.
    """

    truth: int
    predicted: int
    count: int


def confusions(evaluation: Evaluation) -> list[Confusion]:
    """Return all confusions that happened, the most frequent first, then by class."""
    wrong = ~evaluation.is_right
    pairs, counts = np.unique(
        np.stack([evaluation.labels[wrong], evaluation.predicted[wrong]]),
        axis=1,
        return_counts=True,
    )
    order = np.argsort(-counts, kind="stable")
    columns = (pairs[0, order], pairs[1, order], counts[order])
    return [Confusion(*map(int, row)) for row in zip(*columns, strict=True)]


def precisions(evaluation: Evaluation) -> npt.NDArray[np.float64]:
    """Return, as (K,), the share of rightly classified images among those taken for each class.

    NaN for a class that no image was taken for: there is nothing to be right or wrong about.
    """
    return _share_right(evaluation, among=evaluation.predicted)


def recalls(evaluation: Evaluation) -> npt.NDArray[np.float64]:
    """Return, as (K,), the share of rightly classified images among those of each class.

    NaN for a class that no image is of.
    """
    return _share_right(evaluation, among=evaluation.labels)


def _share_right(evaluation: Evaluation, *, among: Labels) -> npt.NDArray[np.float64]:
    count = evaluation.class_count
    right = np.bincount(evaluation.labels[evaluation.is_right], minlength=count)
    total = np.bincount(among, minlength=count)
    shares = np.full(count, np.nan)
    np.divide(right, total, out=shares, where=total > 0)
    return shares


def most_confident_mistakes(evaluation: Evaluation, limit: int) -> npt.NDArray[np.int64]:
    """Return the indices of up to ``limit`` wrongly classified images, the surest first."""
    wrong = np.flatnonzero(~evaluation.is_right)
    order = np.argsort(-evaluation.confidences[wrong], kind="stable")
    return wrong[order[:limit]].astype(np.int64, copy=False)
