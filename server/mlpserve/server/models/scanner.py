"""Scanner of the models folder: what is in it at one time."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from mlpserve.model.digests import DIGEST_FILE_NAME
from mlpserve.model.errors import ModelError
from mlpserve.model.folder import VersionKey, is_folder, model_names, versions, weights_path
from mlpserve.model.labels import Label, read_labels

# What tells that a version's files are other ones, or may be read now; None where they are missing.
Signature: TypeAlias = tuple[tuple[int, ...] | None, ...]

_VANISHED: Final = (
    "{}: has no model any more, of {}, which must be a mistake, as of a volume that is not mounted "
    "(leave the folder of a model there, without versions, to have nothing served)"
)


@dataclass(frozen=True)
class ModelState:
    """What is in the folder of a model.

    Attributes:
        versions: The numbers of its versions, the newest first.
        labels: Its labels.
    """

    versions: tuple[int, ...]
    labels: Mapping[str, Label] = field(default_factory=dict)


@dataclass(frozen=True)
class FolderState:
    """What is in a models folder.

    Attributes:
        models: Its models by their names.
        problems: What could not be read and why, in a sentence each. What was known of it before is
            in ``models``.
    """

    models: Mapping[str, ModelState] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def version_keys(self) -> frozenset[VersionKey]:
        """Return all versions that are in the folder."""
        return frozenset(
            VersionKey(name, version)
            for name, model in self.models.items()
            for version in model.versions
        )


def scan(models: Path, before: FolderState) -> FolderState:
    """Return what is in a models folder.

    What cannot be read now is taken to be as it was: a folder that is away for a while is no reason
    to serve nothing. Nor is one from which all models have vanished, folders and all: a volume that
    is not mounted looks like that, and whoever deletes models seldom means all of them. A model
    whose folder is left, and has no version, has none. A folder that has yet to be made is no
    problem.

    Args:
        models: The folder; may be missing.
        before: What was in it at the last scan.
    """
    try:
        names = model_names(models)
    except ModelError as error:
        is_awaited = isinstance(error.__cause__, FileNotFoundError) and not before.models
        return replace(before, problems=() if is_awaited else (str(error),))
    if not names and before.models and not any(is_folder(models / name) for name in before.models):
        return replace(before, problems=(_VANISHED.format(models, len(before.models)),))
    found = [_scan_one(models, name, before) for name in names]
    return FolderState(
        dict(zip(names, (model for model, _ in found), strict=True)),
        tuple(problem for _, problem in found if problem),
    )


def scan_model(models: Path, name: str, before: FolderState) -> FolderState:
    """Return a state in which the folder of one model was scanned anew."""
    model, problem = _scan_one(models, name, before)
    return FolderState({**before.models, name: model}, (problem,) if problem else ())


def _scan_one(models: Path, name: str, before: FolderState) -> tuple[ModelState, str]:
    """Return what is in the folder of a model, and what is wrong with it, if anything."""
    known = before.models.get(name, ModelState(()))
    numbers = known.versions
    try:
        numbers = tuple(versions(models, name))
        return ModelState(numbers, read_labels(models, name)), ""
    except ModelError as error:
        return ModelState(numbers, known.labels), str(error)


def signature(models: Path, key: VersionKey) -> Signature:
    """Return what changes when the files of a version do, or the right to read them."""
    weights = weights_path(models, *key)
    return tuple(_status(path) for path in (weights, weights.with_name(DIGEST_FILE_NAME)))


def _status(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - called for all that is served, once a second
    except (OSError, ValueError):
        return None
    # The time of the last change of the inode tells of new rights as well.
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, *times)
