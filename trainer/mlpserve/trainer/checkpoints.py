"""Checkpoints: what a run that was stopped or killed needs to go on as if it had not been.

``DIR/checkpoint-STEPS.npz`` holds the vectors of a snapshot, and as JSON where the training is,
what it remembers and what it is of. A file appears whole or not at all, and the one before it is
kept, so that there is one to go on from whatever happens while the next is written.
"""

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.archive import read_arrays, write_arrays
from mlpserve.model.atomic_files import TEMPORARY_PREFIX, atomic_write, temporary_path
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.locks import LockedError, lock_folder
from mlpserve.trainer.errors import CheckpointError, FolderInUseError
from mlpserve.trainer.fitting import FitState, Snapshot
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.learning.engine import NUMPY_NAME
from mlpserve.trainer.learning.training import Position

logger = logging.getLogger(__name__)

_FORMAT_VERSION: Final = 1
_MAX_KEPT: Final = 2
_NAME: Final = re.compile(r"checkpoint-([0-9]{12})\.npz")
_DOCUMENT: Final = "checkpoint"


@dataclass(frozen=True)
class Identity:
    """The identity of a run, which can only go on from a checkpoint of the same.

    Attributes:
        recipe: All settings.
        data_digest: The digest of the images and labels.
        layer_sizes: The width of each layer, the input first.
        threads: How many threads train; others would give other bits.
        value_range: The range of the data's values, as text; None for bytes or shares.
        engine: What computes; another rounds otherwise.
    """

    recipe: Mapping[str, Any]
    data_digest: str
    layer_sizes: tuple[int, ...]
    threads: int
    value_range: str | None = None
    engine: str = NUMPY_NAME


class Checkpoints:
    """The checkpoints of one run in a folder of their own."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._identity = identity
        self._lock_descriptor: int | None = None

    def prepare(self) -> None:
        """Make the folder, take it for this process, and prove that it can be written to.

        Raises:
            CheckpointError: It cannot.
            FolderInUseError: Another process has it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock()
            # What a run that was killed was writing is of no use to anybody.
            for temporary in self._folder.glob(f"{TEMPORARY_PREFIX}*"):
                temporary.unlink()
            probe = temporary_path(self._folder)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise self._cannot_write(error) from error

    def save(self, snapshot: Snapshot) -> Path:
        """Write a checkpoint and wait until it is on disk; keep of the others the one before it.

        Raises:
            CheckpointError: It cannot be written; the ones that are there stay.
        """
        path = self._folder / f"checkpoint-{snapshot.state.position.steps:012}.npz"
        try:
            with atomic_write(path) as file:
                write_arrays(file, self._arrays(snapshot))
            self._remove_all_but(path)
        except OSError as error:
            raise self._cannot_write(error) from error
        return path

    def newest(self) -> tuple[Path, Snapshot] | None:
        """Return the newest checkpoint that can be read, and where it is; None if there is none.

        Raises:
            CheckpointError: There are some, but all are damaged, or it is of another run.
        """
        damage: list[str] = []
        for path in self._paths():
            try:
                document, snapshot = _read(path)
            except (OSError, WeightsFileError) as error:
                damage.append(f"{path}: {error}")
                continue
            self._check_identity(path, document)
            for line in damage:
                logger.warning("passed over a checkpoint that cannot be read: %s", line)
            return path, snapshot
        if damage:
            raise CheckpointError(
                f"no checkpoint can be read; remove them to begin anew: {'; '.join(damage)}"
            )
        return None

    def remove(self) -> None:
        """Remove all checkpoints: the run is over."""
        try:
            for path in self._paths():
                path.unlink(missing_ok=True)
        except (CheckpointError, OSError) as error:
            # What they were kept for is done, so this is no reason to fail.
            logger.warning("%s: the checkpoints cannot be removed: %s", self._folder, error)

    def release(self) -> None:
        """Leave the folder to other runs, which the end of this process does as well."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def _paths(self) -> list[Path]:
        """Return all checkpoints, the newest first."""
        try:
            names = sorted((path.name for path in self._folder.iterdir()), reverse=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self._folder}: cannot be read: {error.strerror}") from error
        return [self._folder / name for name in names if _NAME.fullmatch(name)]

    def _arrays(self, snapshot: Snapshot) -> dict[str, npt.NDArray[Any]]:
        document = {
            "format_version": _FORMAT_VERSION,
            "identity": asdict(self._identity),
            "state": asdict(snapshot.state),
        }
        return {**snapshot.arrays, _DOCUMENT: np.array(json.dumps(document))}

    def _check_identity(self, path: Path, document: Mapping[str, Any]) -> None:
        # By way of JSON, which has lists for tuples.
        ours = _parts(json.loads(json.dumps(asdict(self._identity))))
        theirs = _parts(document["identity"])
        for part in ours | theirs:
            expected, got = ours.get(part), theirs.get(part)
            if expected != got:
                raise CheckpointError(
                    f"{path}: it is of another run: expected {part.replace('_', ' ')} {expected}, "
                    f"as now, got {got}; give the flags and the data of that run, or another "
                    "--checkpoint folder"
                )

    def _remove_all_but(self, path: Path) -> None:
        """Remove what is neither this checkpoint nor the one before it.

        Any that seem to be after it are damaged, or the run would have gone on from there.
        """
        paths = self._paths()
        kept = [other for other in paths if other.name <= path.name][:_MAX_KEPT]
        for other in paths:
            if other not in kept:
                other.unlink(missing_ok=True)

    def _lock(self) -> None:
        """Take the folder until it is released, or this process ends, however that happens."""
        try:
            self._lock_descriptor = lock_folder(self._folder)
        except LockedError as error:
            raise FolderInUseError(
                f"{self._folder}: another run writes its checkpoints here; wait for its end, or "
                "give another --checkpoint folder"
            ) from error

    def _cannot_write(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self._folder}: a checkpoint cannot be written: {error.strerror}")


def _parts(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an identity, and what else it has, side by side."""
    since_then = {"engine": NUMPY_NAME}  # which earlier checkpoints do not name
    return {
        **identity["recipe"],
        **since_then,
        **{key: identity[key] for key in identity if key != "recipe"},
    }


def _read(path: Path) -> tuple[Mapping[str, Any], Snapshot]:
    arrays = read_arrays(path)
    if _DOCUMENT not in arrays:
        raise WeightsFileError(f"entry {_DOCUMENT!r} is missing: not a checkpoint")
    try:
        document = _document(arrays)
        return document, _snapshot(document, arrays)
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsFileError(f"expected a checkpoint, got something else: {error!r}") from error


def _document(arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(str(arrays[_DOCUMENT]))
    if document["format_version"] != _FORMAT_VERSION:
        raise WeightsFileError(
            f"format_version: expected {_FORMAT_VERSION}, got {document['format_version']}"
        )
    _parts(document["identity"])
    return document


def _snapshot(document: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Snapshot:
    state = document["state"]
    return Snapshot(
        FitState(
            **state
            | {
                "position": Position(**state["position"]),
                "records": tuple(EpochRecord(**record) for record in state["records"]),
            }
        ),
        {name: array for name, array in arrays.items() if name != _DOCUMENT},
    )
