"""scikit-learn's MLPClassifier, told to do what the others do and never to stop early."""

import contextlib
import io
import warnings
from typing import Final

from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from mlpserve.datasets import Dataset
from mlpserve.model.inputs import InputSpec
from trainers.tasks import Outcome, Stopwatch, Task

_LEARNING_RATE: Final = 1e-3
_BATCH_SIZE: Final = 128


def run(task: Task, dataset: Dataset) -> Outcome:
    """Train with Adam on shuffled batches, from scikit-learn's own initial weights.

    The epochs are timed by the line that each of them prints: that costs nothing, while
    ``partial_fit`` would check all images again each time.
    """
    spec = InputSpec(dataset.input_shape)
    inputs = spec.scale(dataset.train.images)
    classifier = _classifier(task)
    stopwatch = Stopwatch()
    with warnings.catch_warnings(), contextlib.redirect_stdout(_EpochLines(stopwatch)):
        # It would like more epochs.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(inputs, dataset.train.labels)
    correct = classifier.predict(spec.scale(dataset.test.images)) == dataset.test.labels
    return Outcome(stopwatch.seconds(), test_accuracy=float(correct.mean()))


def _classifier(task: Task) -> MLPClassifier:
    return MLPClassifier(
        task.hidden_sizes,
        activation=task.activation,
        solver="adam",
        alpha=0,  # no weight decay
        batch_size=_BATCH_SIZE,
        learning_rate_init=_LEARNING_RATE,
        max_iter=task.epochs + 1,
        tol=0,
        n_iter_no_change=task.epochs + 2,
        random_state=task.seed,
        verbose=True,
    )


class _EpochLines(io.StringIO):
    """Takes what ``fit`` prints, and notes when it begins a line about an epoch."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self._stopwatch = stopwatch

    def write(self, text: str) -> int:
        if text.startswith("Iteration"):
            self._stopwatch.end_epoch()
        return super().write(text)
