"""Tally of a run: how many rows it has written, how many of them are right, and what has failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlpserve.client import Predictions
from mlpserve.client.predict.batches import START, Batch, Failure, Position


class ResultsError(Exception):
    """The result file cannot be begun, resumed or written; the message says why."""


@dataclass
class Tally:
    """What is known of a run so far.

    Attributes:
        position: The place in the inputs that comes next.
        rows: How many rows were written.
        labelled: How many of them have a known label.
        correct: How many of these were classified so.
        warned: How many rows have a warning.
        failures: The sources that could not be read, or not whole: their names, and why.
    """

    position: Position = START
    rows: int = 0
    labelled: int = 0
    correct: int = 0
    warned: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, batch: Batch, found: Predictions, class_labels: tuple[str, ...]) -> None:
        """Count a batch."""
        self.position = batch.end
        self.rows += len(batch)
        self.warned += sum(map(bool, batch.warnings))
        if batch.true_labels is not None:
            labels = [class_labels[label] for label in found.labels.tolist()]
            self.labelled += len(labels)
            self.correct += sum(map(str.__eq__, labels, batch.true_labels))

    def merge(self, other: "Tally") -> None:
        """Count what another has counted, but for its position."""
        self.rows += other.rows
        self.labelled += other.labelled
        self.correct += other.correct
        self.warned += other.warned
        for name, message in other.failures:
            self._fail(name, message)

    def fail(self, failure: Failure) -> None:
        """Count a failure; of several in one source, the first."""
        self.position = failure.end
        self._fail(failure.source, failure.message)

    def _fail(self, source: str, message: str) -> None:
        if not any(name == source for name, _ in self.failures):
            self.failures.append((source, message))


@contextmanager
def writing(where: object) -> Iterator[None]:
    """Translate what the system refuses meanwhile: the file cannot be written."""
    try:
        yield
    except OSError as error:
        raise ResultsError(f"{where}: cannot be written: {error.strerror or error}") from error
