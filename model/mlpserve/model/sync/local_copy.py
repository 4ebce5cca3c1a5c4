"""Local copy of an object store: a models folder like any other, changed in whole steps only.

Beside each version stands a record of the files that it was copied from. Whoever reads the folder
sees all of a version or nothing of it. Several programs may share one. Knows no store.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mlpserve.model.atomic_files import (
    TEMPORARY_PREFIX,
    atomic_write,
    make_folder,
    make_temporary_folder,
    sync_folder,
    temporary_path,
    write_file,
)
from mlpserve.model.digests import DIGEST_FILE_NAME
from mlpserve.model.errors import SyncError
from mlpserve.model.folder import (
    WEIGHTS_FILE_NAME,
    VersionKey,
    is_model_name,
    versions,
    writing_to,
)
from mlpserve.model.labels import LABELS_FILE_NAME
from mlpserve.model.locks import LockedError, file_lock
from mlpserve.model.sync.urls import not_installed, scheme, url_digest

_RECORD_NAME: Final = ".mirrored.json"
_LABELS_RECORD_NAME: Final = ".labels.mirrored.json"
_OWNER_NAME: Final = ".mirror-of"
_LOCK_NAME: Final = ".lock"

# The sizes and tags of the files that something was copied from, by the files' names.
Record = Mapping[str, tuple[int, str]]


class LocalCopy:
    """A models folder that holds copies, and nothing else.

    Args:
        folder: The folder; made where it is missing.
        owner: What is copied, in words that are the same each time.

    Raises:
        SyncError: The folder cannot be made, or holds something else.
    """

    def __init__(self, folder: Path, *, owner: str) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim(owner)
        except OSError as error:
            raise SyncError(f"FOLDER: {folder} cannot be used: {error.strerror}") from error

    def _claim(self, owner: str) -> None:
        # What is no copy would be removed, for the store does not have it.
        mark = self.folder / _OWNER_NAME
        if not mark.exists() and any(is_model_name(entry.name) for entry in self.folder.iterdir()):
            raise SyncError(f"FOLDER: expected an empty folder, or one made by this, {self.folder}")
        if not mark.exists():
            with atomic_write(mark) as file:
                file.write(owner.encode())
        found = mark.read_text()
        if found != owner:
            raise SyncError(f"FOLDER: {self.folder} holds copies of {found}; name another folder")

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Keep other processes from changing the folder; yield False where one does so now."""
        try:
            with file_lock(self.folder / _LOCK_NAME, wait=False):
                yield True
        except LockedError:
            yield False

    def tidy(self) -> None:
        """Remove what was left unfinished; only under the lock."""
        for path in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def names(self) -> list[str]:
        """Return the names of all models of which there is anything."""
        found = (entry.name for entry in os.scandir(self.folder) if entry.is_dir())
        return [name for name in found if is_model_name(name)]

    def version_keys(self) -> set[VersionKey]:
        """Return all versions that are in the folder."""
        return {
            VersionKey(name, number)
            for name in self.names()
            for number in versions(self.folder, name)
        }

    def holds(self, key: VersionKey, record: Record) -> bool:
        """Return whether a version is there, copied from just these files and as large as they."""
        folder = self._version_folder(self.folder, key)
        return _reads(folder / _RECORD_NAME, record) and all(
            _size_bytes(folder / name) == size_bytes for name, (size_bytes, _) in record.items()
        )

    def holds_labels(self, name: str, record: Record) -> bool:
        """Return whether the labels of a model are there, copied from just this file."""
        folder = self.folder / name
        return (
            _reads(folder / _LABELS_RECORD_NAME, record) and (folder / LABELS_FILE_NAME).is_file()
        )

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Make a folder that no reader looks into, and remove what is left of it.

        Raises:
            ModelsFolderError: It cannot be made.
        """
        with writing_to(self.folder):
            folder = make_temporary_folder(self.folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def appearing(self, name: str) -> Iterator[Path]:
        """Yield a models folder for the first versions of a model, which appear together.

        So that nobody sees a model without the versions that its labels mean.

        Raises:
            ModelsFolderError: It cannot be written to.
        """
        if (self.folder / name).exists():
            yield self.folder
            return
        with self.unfinished() as hidden:
            yield hidden
            if versions(hidden, name):
                with writing_to(self.folder):
                    (hidden / name).rename(self.folder / name)
                    sync_folder(self.folder)

    def put(self, complete: Path, key: VersionKey, record: Record, *, models: Path) -> None:
        """Make a folder with the files of a version that version.

        Args:
            complete: A folder that holds its files.
            key: Which version it is.
            record: What it was copied from.
            models: Where to put it; see ``appearing``.

        Raises:
            ModelsFolderError: The cache cannot be written to.
        """
        target = self._version_folder(models, key)
        with writing_to(self.folder):
            write_file(complete / _RECORD_NAME, _text(record))
            sync_folder(complete)
            make_folder(target.parent)
            if target.exists():
                _replace(complete, target)
            else:
                complete.rename(target)
            sync_folder(target.parent)

    def put_labels(self, file: Path, name: str, record: Record, *, models: Path) -> None:
        """Make a file the labels of a model; errors and arguments as for ``put``."""
        folder = models / name
        with writing_to(self.folder):
            make_folder(folder)
            (folder / _LABELS_RECORD_NAME).unlink(missing_ok=True)
            file.replace(folder / LABELS_FILE_NAME)
            write_file(folder / _LABELS_RECORD_NAME, _text(record))
            sync_folder(folder)

    def remove(self, key: VersionKey) -> None:
        """Remove a version in one step; errors as for ``put``."""
        gone = temporary_path(self.folder)
        with writing_to(self.folder):
            self._version_folder(self.folder, key).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def remove_labels(self, name: str) -> bool:
        """Remove the labels of a model; return whether it had some. Errors as for ``put``."""
        had_some = (self.folder / name / LABELS_FILE_NAME).exists()
        with writing_to(self.folder):
            for file_name in (LABELS_FILE_NAME, _LABELS_RECORD_NAME):
                (self.folder / name / file_name).unlink(missing_ok=True)
            with suppress(OSError):  # it is not empty
                (self.folder / name).rmdir()
        return had_some

    @staticmethod
    def _version_folder(models: Path, key: VersionKey) -> Path:
        return models / key.name / str(key.version)


def _replace(complete: Path, target: Path) -> None:
    """Replace the files of a version so that at each moment they belong together."""
    (target / _RECORD_NAME).unlink(missing_ok=True)
    # Weights without a digest are fine; with that of others they are not.
    (target / DIGEST_FILE_NAME).unlink(missing_ok=True)
    (complete / WEIGHTS_FILE_NAME).replace(target / WEIGHTS_FILE_NAME)
    with suppress(FileNotFoundError):
        (complete / DIGEST_FILE_NAME).replace(target / DIGEST_FILE_NAME)
    # Whoever read the old digest and the new weights has refused them, and is to look again.
    os.utime(target / WEIGHTS_FILE_NAME)
    (complete / _RECORD_NAME).replace(target / _RECORD_NAME)


def _text(record: Record) -> bytes:
    return json.dumps(record, sort_keys=True).encode()


def _reads(path: Path, record: Record) -> bool:
    try:
        return path.read_bytes() == _text(record)
    except OSError:
        return False


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def default_folder(url: str) -> Path:
    """Return where the copy of a store is where nobody names a place: in the user's cache folder.

    Raises:
        SyncError: What finds that folder is not installed.
    """
    try:
        import platformdirs  # noqa: PLC0415 - comes with the extra
    except ImportError as error:
        raise not_installed(scheme(url), "platformdirs") from error
    return platformdirs.user_cache_path("mlpserve") / "models" / url_digest(url)
