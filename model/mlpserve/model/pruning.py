"""Pruning: deletes the versions of a model that nobody needs any more.

A version vanishes in one step, by the rename of its folder, and is then deleted; so no reader sees
half of it. Whoever has it open, as a server that has loaded it, keeps it until it lets go. The
newest version is never deleted, so that no trainer gives its number once more.
"""

import itertools
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlpserve.model.atomic_files import (
    DELETED_PREFIX,
    TEMPORARY_PREFIX,
    deleted_path,
    sync_folder,
)
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import locked, versions, writing_to
from mlpserve.model.labels import Label, earlier_version, read_labels
from mlpserve.model.versions import load_checked

# Publishing takes seconds. What is unfinished so long belongs to a trainer that was killed.
TEMPORARY_AGE_S: Final = 24 * 3600.0


@dataclass(frozen=True)
class Pruned:
    """The versions and leftovers of a model that were deleted, or would be.

    Attributes:
        versions: The numbers of the versions, the newest first.
        leftovers: What killed trainers and killed deletions had left behind.
    """

    versions: tuple[int, ...]
    leftovers: tuple[Path, ...]


def prune(models: Path, name: str, *, keep: int, dry_run: bool = False) -> Pruned:
    """Delete all versions of a model but the newest, those with labels, and those before them.

    Only versions that can be used count as the newest ones, so that versions which failed do not
    drive out the last good one; where fewer than ``keep`` can be used, none is deleted. A version
    that a label would be rolled back to is not deleted either.

    Args:
        models: The models folder.
        name: The model's name.
        keep: How many of the newest to keep, at least 1.
        dry_run: Delete nothing, only say what would be deleted.

    Raises:
        NoVersionError: There is no such model.
        LabelsFileError: The labels cannot be read; nothing is deleted.
        ModelsFolderError: The folder cannot be read or written to.
    """
    with locked(models, name):
        found = versions(models, name)
        protected = _labelled(read_labels(models, name), found)
        oldest = _oldest_to_keep(models, name, found, keep)
        pruned = Pruned(
            tuple(number for number in found if number < oldest and number not in protected),
            tuple(_leftovers(models / name)),
        )
        vanished = () if dry_run else _vanish(models / name, pruned.versions)
    if not dry_run:
        _delete(models / name, (*vanished, *pruned.leftovers))
    return pruned


def _oldest_to_keep(models: Path, name: str, found: list[int], keep: int) -> int:
    """Return the oldest of the newest versions that can be used; 0 where these are too few."""
    usable = (number for number in found if _is_usable(models, name, number))
    return next(itertools.islice(usable, keep - 1, None), 0)


def _is_usable(models: Path, name: str, version: int) -> bool:
    try:
        load_checked(models, name, version)
    except WeightsFileError:
        return False
    return True


def _labelled(labels: Mapping[str, Label], found: list[int]) -> set[int | None]:
    """Return the versions that labels mean, or would mean when they are rolled back."""
    return {label.version for label in labels.values()} | {
        earlier_version(label, found) for label in labels.values()
    }


def _leftovers(folder: Path) -> Iterator[Path]:
    """Yield what is of no use to anybody: of deletions always, of trainers when it is old."""
    oldest_s = time.time() - TEMPORARY_AGE_S
    with writing_to(folder):
        paths = sorted(folder.iterdir())
    for path in paths:
        if path.name.startswith(DELETED_PREFIX) or (
            path.name.startswith(TEMPORARY_PREFIX) and _changed_s(path) < oldest_s
        ):
            yield path


def _changed_s(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return math.inf  # finished meanwhile


def _vanish(folder: Path, numbers: Iterable[int]) -> list[Path]:
    """Rename versions to what no reader looks at; return where they are now."""
    vanished = []
    with writing_to(folder):
        for number in numbers:
            target = deleted_path(folder)
            (folder / str(number)).rename(target)
            vanished.append(target)
        sync_folder(folder)
    return vanished


def _delete(folder: Path, paths: Iterable[Path]) -> None:
    with writing_to(folder):
        for path in paths:
            _delete_tree(path)


def _delete_tree(path: Path) -> None:
    try:
        # A link is no folder of ours: what it leads to stays.
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        pass  # another deletion is at the same work; what both leave is deleted by the next one
