"""The models folder, ``MODELS/NAME/VERSION/weights.npz``: names, versions, and the model's lock.

A version appears in one step, by the rename of a folder that is complete. Whoever reads sees all of
a version or nothing of it, whatever happens to the writer. Readers need no lock.

Knows no weights, and needs no NumPy: whoever only looks at the folder is small and starts quickly.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from mlpserve.model.errors import ModelsFolderError, NoVersionError, WeightsFileError
from mlpserve.model.locks import file_lock

WEIGHTS_FILE_NAME: Final = "weights.npz"
LOCK_FILE_NAME: Final = ".lock"
MAX_VERSION: Final = 10**18 - 1
_MAX_NAMES_IN_MESSAGE: Final = 10
_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION_PATTERN: Final = re.compile(r"[1-9][0-9]{0,17}")


class VersionKey(NamedTuple):
    """The key of a version: its model's name and its number."""

    name: str
    version: int

    def __str__(self) -> str:
        """Return the words by which people know it."""
        return f"{self.name} version {self.version}"


def is_model_name(name: str) -> bool:
    """Return whether a model may be called so: it must be safe as the name of a folder.

    Letters, digits, dots, dashes and underscores, a letter or digit first, at most 64.
    """
    return _NAME_PATTERN.fullmatch(name) is not None


def is_version(text: str) -> bool:
    """Return whether this is the number of a version: digits, no 0 in front, in an int64."""
    return _VERSION_PATTERN.fullmatch(text) is not None


def model_names(models: Path) -> list[str]:
    """Return the names that have at least one version, or a folder that cannot be read, sorted.

    Raises:
        ModelsFolderError: The models folder is missing or cannot be read.
    """
    return [name for name in _folder_names(models) if is_model_name(name) and _exists(models, name)]


def versions(models: Path, name: str) -> list[int]:
    """Return the numbers of the versions that a model has, the newest first; empty if none.

    Raises:
        ModelsFolderError: The folder cannot be read.
    """
    folder = models / name
    # A name may come from a caller, and must not lead out of the models folder.
    if not is_model_name(name) or not is_folder(folder):
        return []
    numbers = (int(entry) for entry in _folder_names(folder) if is_version(entry))
    return sorted(numbers, reverse=True)


def is_folder(path: Path) -> bool:
    """Return whether a folder is there.

    Raises:
        ModelsFolderError: It may not be looked at.
    """
    # Path.is_dir would, from Python 3.14 on, say False of a folder that may not be looked at.
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ModelsFolderError(f"{path}: cannot be read: {error.strerror}") from error


def weights_path(models: Path, name: str, version: int) -> Path:
    """Return where the weights of a version are."""
    return models / name / str(version) / WEIGHTS_FILE_NAME


def open_file(path: Path) -> IO[bytes]:
    """Open a file to read it; a pipe or a device would be waited for, for ever perhaps.

    Raises:
        WeightsFileError: It is no file; the message does not name it.
        OSError: It is missing, or cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise WeightsFileError("expected a file, got a folder, a pipe or a device")
    return path.open("rb")


@contextmanager
def locked(models: Path, name: str) -> Iterator[None]:
    """Hold the lock of a model: one writer at a time changes which versions and labels it has.

    On a file system without locks nobody is kept out, and of many changes at once some may be lost.

    Raises:
        NoVersionError: There is no such model.
        ModelsFolderError: The folder cannot be read or written to.
    """
    folder = models / name
    if not is_model_name(name) or not is_folder(folder):
        raise no_model(models, name)
    with ExitStack() as held:
        with writing_to(folder):
            held.enter_context(file_lock(folder / LOCK_FILE_NAME, wait=True))
        yield


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Translate whatever the system refuses meanwhile: the folder cannot be written to.

    Raises:
        ModelsFolderError: Instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise ModelsFolderError(f"{folder}: cannot be written to: {error.strerror}") from error


def no_model(models: Path, name: str) -> NoVersionError:
    """Return the error for a model that is not there.

    Raises:
        ModelsFolderError: The folder cannot be read.
    """
    if not is_folder(models):
        return NoVersionError(f"{models}: there is no such folder")
    if is_version(name) and weights_path(models.parent, models.name, int(name)).exists():
        advice = f"did you mean {models}:{name}?"
    else:
        advice = f"it has {_listed(model_names(models))}"
    return NoVersionError(f"{models}: has no model {name!r}; {advice}")


def no_version(folder: Path, version: int, found: Sequence[int]) -> NoVersionError:
    """Return the error for a version that is not there.

    Args:
        folder: The model's folder.
        version: The version that was named.
        found: Those that are there, the newest first.
    """
    return NoVersionError(f"{folder}: has no version {version}; it has {_listed(found)}")


def no_label(folder: Path, label: str, found: Iterable[str]) -> NoVersionError:
    """Return the error for a label that a model does not have.

    Args:
        folder: The model's folder.
        label: The label that was named.
        found: Those that it has.
    """
    return NoVersionError(f"{folder}: has no label {label!r}; it has {_listed(list(found))}")


def _exists(models: Path, name: str) -> bool:
    try:
        return bool(versions(models, name))
    except ModelsFolderError:
        return True  # whoever asks for its versions is told what is wrong


def _folder_names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if _leads_to_folder(entry))
    except OSError as error:
        raise ModelsFolderError(f"{folder}: cannot be read: {error.strerror}") from error


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to where we may not look: nothing of ours


def _listed(values: Sequence[object]) -> str:
    listed = ", ".join(map(str, values[:_MAX_NAMES_IN_MESSAGE])) or "none"
    more = len(values) - _MAX_NAMES_IN_MESSAGE
    return f"{listed} and {more} more" if more > 0 else listed
