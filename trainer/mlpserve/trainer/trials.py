"""Trials of a sweep: what each varied, what its epochs found, and which of them is the best.

They are judged by the validation split. No choice is made by the test images.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.search_space import Parameter

METRICS: Final = ("loss", "accuracy")
SWEEP_FILE_NAME: Final = "sweep.json"


class TrialState(StrEnum):
    """The state of a trial between two of its runs."""

    WAITING = "waiting"  # for its first epoch
    STOPPED = "stopped"  # before its last epoch, with a checkpoint
    ENDED = "ended"  # as a training of its own would have
    FAILED = "failed"


_RANKS: Final = (
    TrialState.ENDED,
    TrialState.STOPPED,
    TrialState.WAITING,
    TrialState.FAILED,
)


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    Attributes:
        number: Its number, from 1.
        values: The settings that it varies: flags without their dashes, and what they are given.
        state: How far it came.
        records: What each epoch so far found.
        failure: Why it failed, as a sentence; None if it has not.
    """

    number: int
    values: Mapping[str, str]
    state: TrialState = TrialState.WAITING
    records: tuple[EpochRecord, ...] = ()
    failure: str | None = None

    @property
    def epochs(self) -> int:
        """Return how many epochs are done."""
        return len(self.records)

    def __str__(self) -> str:
        """Return its number and its settings, as a line begins with them."""
        settings = ", ".join(
            f"{name} {value or repr(value)}" for name, value in self.values.items()
        )
        return f"trial {self.number} ({settings})"


@dataclass(frozen=True)
class Rules:
    """The rules by which trials are stopped, and the best is chosen.

    Attributes:
        metric: One of ``METRICS``, of the validation split.
        rungs: After how many epochs trials are compared, rising; the last is after all of them.
        reduction: One of so many trials goes on after a rung.
        keeps_lowest: Whether a training ends with its epoch of the lowest loss, as with
            ``--patience``, rather than with its last one.
    """

    metric: str
    rungs: tuple[int, ...]
    reduction: int
    keeps_lowest: bool = False

    def kept(self, trial: Trial, epochs: int | None = None) -> EpochRecord | None:
        """Return the epoch that a trial is judged by; None where it has none.

        Args:
            trial: The trial.
            epochs: As it was after so many epochs; None for as it is.
        """
        records = trial.records[:epochs]
        if not records:
            return None
        return min(records, key=_loss) if self.keeps_lowest else records[-1]

    def found(self, trial: Trial) -> tuple[float | None, float | None]:
        """Return the validation loss and accuracy that a trial is judged by, where it has some."""
        record = self.kept(trial)
        return (
            (None, None) if record is None else (record.validation_loss, record.validation_accuracy)
        )

    def badness(self, trial: Trial, epochs: int | None = None) -> float:
        """Return how bad a trial is: the less, the better; infinity where nothing is known.

        Args:
            trial: The trial.
            epochs: As for ``kept``.
        """
        record = self.kept(trial, epochs)
        if record is None:
            return math.inf
        if self.metric == "loss":
            return _loss(record)
        accuracy = record.validation_accuracy
        return math.inf if accuracy is None or math.isnan(accuracy) else 1 - accuracy


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is.

    Attributes:
        parameters: What its trials vary.
        rules: How they are judged.
        trials: All of them, by their numbers.
    """

    parameters: tuple[Parameter, ...]
    rules: Rules
    trials: tuple[Trial, ...]

    def best(self) -> Trial | None:
        """Return the best trial of those that came to their end; None where none has."""
        ended = [trial for trial in self.trials if trial.state is TrialState.ENDED]
        return min(ended, key=lambda trial: (self.rules.badness(trial), trial.number), default=None)

    def ranked(self) -> list[Trial]:
        """Return all trials, those that went further first, then the better ones."""

        def place(trial: Trial) -> tuple[int, int, float, int]:
            further = 0 if trial.state is TrialState.ENDED else -trial.epochs
            badness = self.rules.badness(trial)
            return _RANKS.index(trial.state), further, badness, trial.number

        return sorted(self.trials, key=place)


def document(sweep: Sweep) -> dict[str, Any]:
    """Return all of a sweep in the words of JSON, which has none for what is not finite."""
    best = sweep.best()
    return {
        "parameters": {parameter.name: parameter.text for parameter in sweep.parameters},
        "rules": asdict(sweep.rules),
        "best": None if best is None else best.number,
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "values": dict(trial.values),
                "failure": trial.failure,
                "epochs": [_finite(asdict(record)) for record in trial.records],
            }
            for trial in sweep.trials
        ],
    }


def sweep_document(sweep: Sweep) -> bytes:
    """Return the file of a sweep, as it is published."""
    return json.dumps(document(sweep), indent=1, allow_nan=False).encode()


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _loss(record: EpochRecord) -> float:
    loss = record.validation_loss
    return math.inf if loss is None or math.isnan(loss) else loss
