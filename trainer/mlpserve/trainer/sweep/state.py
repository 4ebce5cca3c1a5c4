"""State of a sweep on disk: ``sweep.json`` in its folder, from which the same command goes on.

Written whole or not at all after each run of a trial. What an epoch found since is in the trial's
checkpoint.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from mlpserve.model.atomic_files import TEMPORARY_PREFIX, atomic_write
from mlpserve.model.locks import LockedError, lock_folder
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.trials import SWEEP_FILE_NAME, Sweep, Trial, TrialState, document

_FORMAT_VERSION: Final = 1
_TRIALS: Final = "trials"
_NEVER_NONE: Final = ("train_loss", "train_accuracy", "learning_rate", "elapsed_s", "images_per_s")


@dataclass(frozen=True)
class Published:
    """The version that a sweep was published as.

    Attributes:
        model: The model's name.
        version: Its number.
    """

    model: str
    version: int


class SweepFolder:
    """The folder of a sweep: its state, and a folder of checkpoints for each trial.

    Attributes:
        path: Where it is.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Prepare to use a folder.

        Args:
            folder: The folder.
            identity: What the sweep is of: texts and numbers by name. Another one's is refused.
        """
        self.path = folder
        self._file = folder / SWEEP_FILE_NAME
        self._identity: Mapping[str, Any] = json.loads(json.dumps(identity))

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Make the folder, and take it for this process.

        Raises:
            TrainingError: It cannot be made, or another sweep has it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(self.path)
        except LockedError as error:
            raise TrainingError(
                f"{self.path}: another sweep is at work here; wait for its end, or give another "
                "--folder"
            ) from error
        except OSError as error:
            raise self._cannot_write(error) from error
        try:
            for temporary in self.path.glob(f"{TEMPORARY_PREFIX}*"):
                temporary.unlink(missing_ok=True)
            yield
        finally:
            os.close(lock)

    def trial_folder(self, number: int) -> Path:
        """Return where the checkpoints of a trial are."""
        return self.path / _TRIALS / f"{number:04}"

    def load(self, sweep: Sweep) -> tuple[Sweep, Published | None]:
        """Return how far a sweep came, and as what it was published, if it was.

        Trials that failed are given another try: a disk that was full may have room now.

        Args:
            sweep: The sweep as it begins.

        Raises:
            TrainingError: The file cannot be used, or is of another sweep.
        """
        try:
            text = self._file.read_bytes()
        except FileNotFoundError:
            return sweep, None
        except OSError as error:
            raise TrainingError(f"{self._file}: cannot be read: {error.strerror}") from error
        try:
            found = json.loads(text)
            self._check(found)
            trials = tuple(map(_trial, found["trials"]))
            published = found["published"] and Published(**found["published"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise TrainingError(
                f"{self._file}: expected the state of a sweep, got something else ({error!r}); "
                f"remove {self.path} to begin anew"
            ) from error
        return replace(sweep, trials=trials), published

    def save(self, sweep: Sweep, published: Published | None = None) -> None:
        """Write how far a sweep is, and wait until it is on disk.

        Raises:
            TrainingError: It cannot be written; what was written before stays.
        """
        content = {
            "format_version": _FORMAT_VERSION,
            "identity": self._identity,
            "published": None if published is None else vars(published),
            **document(sweep),
        }
        try:
            with atomic_write(self._file) as file:
                file.write(json.dumps(content, indent=1, allow_nan=False).encode())
        except OSError as error:
            raise self._cannot_write(error) from error

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of all trials, which nobody needs any more."""
        shutil.rmtree(self.path / _TRIALS, ignore_errors=True)

    def _check(self, found: Mapping[str, Any]) -> None:
        if found["format_version"] != _FORMAT_VERSION:
            raise ValueError(
                f"format_version: expected {_FORMAT_VERSION}, got {found['format_version']}"
            )
        ours, theirs = self._identity, found["identity"]
        for part in ours | theirs:
            expected, got = ours.get(part), theirs.get(part)
            if expected != got:
                raise TrainingError(
                    f"{self._file}: it is of another sweep: expected {part.replace('_', ' ')} "
                    f"{expected}, as now, got {got}; give the flags and the data of that sweep, or "
                    "another --folder"
                )

    def _cannot_write(self, error: OSError) -> TrainingError:
        return TrainingError(f"{self.path}: cannot be written to: {error.strerror}")


def _trial(found: Mapping[str, Any]) -> Trial:
    state = TrialState(found["state"])
    records = tuple(map(_record, found["epochs"]))
    if state is TrialState.FAILED:
        state = TrialState.STOPPED if records else TrialState.WAITING
    return Trial(found["number"], found["values"], state, records)


def _record(found: Mapping[str, Any]) -> EpochRecord:
    lost = {name: math.nan for name in _NEVER_NONE if found[name] is None}
    return EpochRecord(**{**found, **lost})
