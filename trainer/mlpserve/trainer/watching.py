"""Watch of a training: the network as it is between two steps, for programs that draw it.

Bounded in rate, in what it costs the training, and in the size of a line.
"""

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mlpserve.datasets import Split
from mlpserve.model.activations import FloatArray
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.evaluation import Evaluation, confusion_matrix, evaluate
from mlpserve.trainer.learning.training import Position, Training

_MAX_NEURONS: Final = 64
_MAX_WEIGHTS: Final = 65_536
_MAX_CLASSES: Final = 32
_MAX_IMAGES: Final = 10_000  # that are judged for one line
_MAX_COST: Final = 0.1  # of the time
_HIGHEST: Final = np.iinfo(np.int8).max


@dataclass(frozen=True)
class FirstLayer:
    """The weights of the first layer's neurons, to be shown as pictures.

    Attributes:
        shape: How many neurons there are here, and the shape of an image.
        scale: What a weight of 127 stands for.
        weights: One int8 a weight, neuron after neuron, in base64.
    """

    shape: tuple[int, ...]
    scale: float
    weights: str


@dataclass(frozen=True)
class Confusions:
    """The answers to images of each class.

    Attributes:
        split: Which images, "validation" or, where none are held out, "training".
        class_labels: The classes.
        counts: How many images of the row's class were taken for the column's.
    """

    split: str
    class_labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Progress:
    """A training between two steps.

    Attributes:
        step: How many steps are done.
        steps: How many there are, over all epochs.
        epochs: How many epochs are done, with the share of the one under way.
        learning_rate: That of the last step.
        train_loss: The mean cross-entropy since the last ``Progress`` of the same epoch, in nats,
            each image judged just before the step that learned from it.
        train_accuracy: The share of these images classified rightly, 0 to 1.
        validation_loss: The mean cross-entropy of held-out images; None without any.
        validation_accuracy: The share of these classified rightly; None without any.
        confusions: None where there are many classes.
        first_layer: None where images are large, or the weights not finite.
    """

    step: int
    steps: int
    epochs: float
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    confusions: Confusions | None
    first_layer: FirstLayer | None


class Watch:
    """Looks at a training at most so often, and for at most a tenth of the time."""

    def __init__(
        self,
        training: Training,
        train: Split,
        *,
        validation: Split | None,
        spec: InputSpec,
        class_labels: Sequence[str],
        every_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Prepare a watch.

        Args:
            training: What is watched.
            train: What it learns from.
            validation: What it is judged by; None for what it learns from.
            spec: What the network takes.
            class_labels: What its classes are called.
            every_s: How many seconds lie between two looks at least; infinity for no looks.
            clock: Seconds that only grow, like ``time.monotonic``.
        """
        self._training = training
        self._has_validation = validation is not None
        self._spec = spec
        self._class_labels = class_labels
        self._every_s = every_s
        self._clock = clock
        self._due_s = clock()
        self._before = Position()
        self._judged = train if validation is None else validation
        # Those of a table may be sorted by class: some from all over are taken.
        stride = math.ceil(len(self._judged) / _MAX_IMAGES)
        if stride > 1 and every_s < math.inf:
            self._judged = self._judged.select(np.arange(0, len(self._judged), stride))

    def look(self, *, is_last: bool) -> Progress | None:
        """Return how the training is; None where it was looked at a moment ago, or nothing is new.

        Args:
            is_last: Whether it will not be looked at again.
        """
        began_s, position = self._clock(), self._training.position
        is_due = self._every_s < math.inf and (is_last or began_s >= self._due_s)
        if not is_due or position.steps == self._before.steps:
            return None
        found = self._found(position)
        ended_s = self._clock()
        self._due_s = ended_s + max(self._every_s, (ended_s - began_s) / _MAX_COST)
        self._before = position
        return found

    def _found(self, position: Position) -> Progress:
        training, network = self._training, self._training.network
        judged = evaluate(network, self._spec, self._judged)
        held_out = judged if self._has_validation else None
        # An epoch counts its images from 0.
        before = self._before if self._is_of_one_epoch(position) else Position()
        images = position.images - before.images
        return Progress(
            step=position.steps,
            steps=training.steps,
            epochs=position.steps / training.steps_per_epoch,
            learning_rate=training.learning_rate(position.steps - 1),
            train_loss=(position.loss_sum - before.loss_sum) / images,
            train_accuracy=(position.correct - before.correct) / images,
            validation_loss=None if held_out is None else held_out.cross_entropy,
            validation_accuracy=None if held_out is None else held_out.accuracy,
            confusions=self._confusions(judged),
            first_layer=_first_layer(network.layers[0].weights, self._spec.shape),
        )

    def _is_of_one_epoch(self, position: Position) -> bool:
        """Return whether the look before was at the same epoch, before its end."""
        epoch, done = divmod(self._before.steps, self._training.steps_per_epoch)
        return done > 0 and epoch == (position.steps - 1) // self._training.steps_per_epoch

    def _confusions(self, judged: Evaluation) -> Confusions | None:
        if judged.class_count > _MAX_CLASSES:
            return None
        split = "validation" if self._has_validation else "training"
        return Confusions(split, self._class_labels, confusion_matrix(judged).tolist())


def _first_layer(weights: FloatArray, image_shape: tuple[int, ...]) -> FirstLayer | None:
    values, neurons = weights.shape
    shown = weights.T[: min(neurons, _MAX_NEURONS, _MAX_WEIGHTS // values)]
    scale = float(np.abs(shown).max(initial=0))
    if not len(shown) or not math.isfinite(scale):
        return None
    small = np.rint(shown * (_HIGHEST / scale if scale else 0)).astype(np.int8)
    encoded = base64.b64encode(small.tobytes()).decode()
    return FirstLayer((len(shown), *image_shape), scale, encoded)
