"""Tracker of a sweep: takes what trials tell, keeps it on disk, and shows how it goes."""

from collections.abc import Iterable
from dataclasses import replace

from mlpserve.datasets.progress import Note
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.progress import Display
from mlpserve.trainer.sweep.state import SweepFolder
from mlpserve.trainer.trials import Sweep, Trial, TrialState

_OVER = (TrialState.ENDED, TrialState.FAILED)


class Tracker:
    """Keeps a sweep up to date.

    Attributes:
        sweep: The sweep as it is.
    """

    def __init__(self, sweep: Sweep, folder: SweepFolder, display: Display, note: Note) -> None:
        """Prepare to follow a sweep.

        Args:
            sweep: The sweep as it was left.
            folder: Where it is kept.
            display: Shows what comes of it.
            note: Takes how many trials have begun, and how many there are.
        """
        self.sweep = sweep
        self._folder = folder
        self._display = display
        self._note = note

    def trial(self, number: int) -> Trial:
        """Return a trial as it is."""
        return self.sweep.trials[number - 1]

    def resumed(self, number: int, records: Iterable[EpochRecord]) -> None:
        """Take what the epochs of a trial found that its checkpoint is after."""
        self._replace(replace(self.trial(number), records=tuple(records)))

    def epoch(self, number: int, record: EpochRecord) -> None:
        """Take what an epoch found."""
        trial = self.trial(number)
        self._replace(replace(trial, records=(*trial.records[: record.epoch], record)))
        self._display.trial_epoch(number, record)

    def ran(self, number: int, state: TrialState, failure: str | None = None) -> None:
        """Take how a run of a trial ended.

        Args:
            number: The trial's number.
            state: The state that it left the trial in.
            failure: Why it failed, if it did.

        Raises:
            TrainingError: The state of the sweep cannot be written.
        """
        trial = replace(self.trial(number), state=state, failure=failure)
        self._replace(trial)
        self._folder.save(self.sweep)
        self._show(trial)

    def warn(self, text: str) -> None:
        """Show a warning."""
        self._display.warn(text)

    def _replace(self, trial: Trial) -> None:
        trials = self.sweep.trials
        before, after = trials[: trial.number - 1], trials[trial.number :]
        self.sweep = replace(self.sweep, trials=(*before, trial, *after))

    def _show(self, trial: Trial) -> None:
        loss, accuracy = self.sweep.rules.found(trial)
        self._display.event(
            "trial",
            f"{trial}: {outcome(trial)}{_found(loss, accuracy)}",
            number=trial.number,
            state=trial.state,
            values=dict(trial.values),
            epochs=trial.epochs,
            validation_loss=loss,
            validation_accuracy=accuracy,
            failure=trial.failure,
        )
        waiting = sum(each.state is TrialState.WAITING for each in self.sweep.trials)
        total = len(self.sweep.trials)
        self._note(total - waiting, total)


def outcome(trial: Trial) -> str:
    """Return how far a trial came, in a few words."""
    epochs = f"{trial.epochs} epoch{'' if trial.epochs == 1 else 's'}"
    if trial.state is TrialState.FAILED:
        return f"failed: {trial.failure}"
    if trial.state is TrialState.ENDED:
        return f"ended after {epochs}"
    return f"stopped after {epochs}" if trial.epochs else "did not begin"


def _found(loss: float | None, accuracy: float | None) -> str:
    if loss is None or accuracy is None:
        return ""
    return f": validation loss {loss:.4f}, accuracy {100 * accuracy:.2f} %"
