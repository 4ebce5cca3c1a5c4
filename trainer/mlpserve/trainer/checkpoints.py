"""Checkpoints: what a run that was stopped or killed needs to go on as if it had not been.

``DIR/checkpoint-STEPS.npz`` holds the vectors of a snapshot, and as JSON where the training is,
what it remembers and what it is of. A file appears whole or not at all, and the one before it is
kept, so that there is one to go on from whatever happens while the next is written.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.archive import read_arrays, write_arrays
from mlpserve.model.errors import WeightsFileError
from mlpserve.trainer.errors import CheckpointError
from mlpserve.trainer.fitting import FitState, Snapshot
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.learning.training import Position

_FORMAT_VERSION: Final = 1
_KEPT: Final = 2
_NAME: Final = re.compile(r"checkpoint-([0-9]{12})\.npz")
_DOCUMENT: Final = "checkpoint"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is of; a run can only go on from one that is of the same.

    Attributes:
        recipe: All settings.
        data_digest: The digest of the images and labels.
        layer_sizes: The width of each layer, the input first.
        threads: How many threads train; others would give other bits.
    """

    recipe: Mapping[str, Any]
    data_digest: str
    layer_sizes: tuple[int, ...]
    threads: int


class Checkpoints:
    """The checkpoints of one run in a folder of their own."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._identity = identity

    def prepare(self) -> None:
        """Make the folder and prove that it can be written to.

        Raises:
            CheckpointError: It cannot.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe = self._folder / f".unfinished-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise self._cannot_write(error) from error

    def save(self, snapshot: Snapshot) -> Path:
        """Write a checkpoint and wait until it is on disk; remove those before the last one.

        Raises:
            CheckpointError: It cannot be written; the ones that are there stay.
        """
        path = self._folder / f"checkpoint-{snapshot.state.position.steps:012}.npz"
        unfinished = path.with_name(f".unfinished-{os.getpid()}")
        try:
            self._write(unfinished, snapshot)
            unfinished.replace(path)
            self._sync_folder()
            for old in self._paths()[_KEPT:]:
                old.unlink(missing_ok=True)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise self._cannot_write(error) from error
        return path

    def newest(self) -> tuple[Path, Snapshot] | None:
        """Return the newest checkpoint that can be read, and where it is; None if there is none.

        Raises:
            CheckpointError: There are some, but all are damaged, or it is of another run.
        """
        damage = ""
        for path in self._paths():
            try:
                document, snapshot = _read(path)
            except (OSError, WeightsFileError) as error:
                damage = damage or f"{path}: {error}"
                continue
            self._check_identity(path, document)
            return path, snapshot
        if damage:
            raise CheckpointError(f"no checkpoint can be read: {damage}")
        return None

    def remove(self) -> None:
        """Remove all checkpoints: the run is over."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """Return all checkpoints, the newest first."""
        try:
            names = sorted((path.name for path in self._folder.iterdir()), reverse=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self._folder}: cannot be read: {error.strerror}") from error
        return [self._folder / name for name in names if _NAME.fullmatch(name)]

    def _write(self, path: Path, snapshot: Snapshot) -> None:
        document = {
            "format_version": _FORMAT_VERSION,
            "identity": asdict(self._identity),
            "state": asdict(snapshot.state),
        }
        arrays: dict[str, npt.NDArray[Any]] = dict(snapshot.arrays)
        arrays[_DOCUMENT] = np.array(json.dumps(document))
        with path.open("wb") as file:
            write_arrays(file, arrays)
            file.flush()
            os.fsync(file.fileno())

    def _check_identity(self, path: Path, document: Mapping[str, Any]) -> None:
        ours, theirs = json.loads(json.dumps(asdict(self._identity))), document["identity"]
        for part in (*ours["recipe"], *(key for key in ours if key != "recipe")):
            mine, other = (
                where["recipe"].get(part) if part in ours["recipe"] else where.get(part)
                for where in (ours, theirs)
            )
            if mine != other:
                raise CheckpointError(
                    f"{path}: it is of another run: its {part.replace('_', ' ')} is {other}, "
                    f"this run's is {mine}; give the same flags, or another --checkpoint folder"
                )

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _cannot_write(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self._folder}: a checkpoint cannot be written: {error.strerror}")


def _read(path: Path) -> tuple[Mapping[str, Any], Snapshot]:
    arrays = read_arrays(path)
    document = _document(arrays)
    try:
        return document, _snapshot(document, arrays)
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsFileError(f"expected a checkpoint, got something else: {error!r}") from error


def _document(arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, Any]:
    if _DOCUMENT not in arrays:
        raise WeightsFileError(f"entry {_DOCUMENT!r} is missing: not a checkpoint")
    document: Mapping[str, Any] = json.loads(str(arrays[_DOCUMENT]))
    if document["format_version"] != _FORMAT_VERSION:
        raise WeightsFileError(
            f"format_version: expected {_FORMAT_VERSION}, got {document['format_version']}"
        )
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
