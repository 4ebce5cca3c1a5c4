"""The models folder: ``MODELS/NAME/VERSION/weights.npz``, read while others write.

A version appears in one step, by the rename of a folder that is complete. Whoever reads sees all of
a version or nothing of it, whatever happens to the writer. Other files may appear together with the
weights; what is in them is their readers' business. Knows no network.
"""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from mlpserve.model.errors import ModelsFolderError, WeightsFileError
from mlpserve.model.metadata import is_model_name
from mlpserve.model.weights import (
    WEIGHTS_FILE_NAME,
    Model,
    check_golden,
    load_model,
    save_model,
)

# What goes beside the weights of a version whose number is known: contents by the files' names.
Attachments: TypeAlias = Callable[[Model], Mapping[str, bytes]]

_VERSION_PATTERN: Final = re.compile(r"[1-9][0-9]{0,17}")
# Folders with a dot in front are nobody's version, so no reader looks into them.
_UNFINISHED_PREFIX: Final = ".unfinished-"
_ATTACHMENT_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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
    if not is_model_name(name) or not _is_folder(folder):
        return []
    numbers = (int(entry) for entry in _folder_names(folder) if is_version(entry))
    return sorted(numbers, reverse=True)


def _exists(models: Path, name: str) -> bool:
    try:
        return bool(versions(models, name))
    except ModelsFolderError:
        return True  # whoever asks for its versions is told what is wrong


def weights_path(models: Path, name: str, version: int) -> Path:
    """Return where the weights of a version are."""
    return models / name / str(version) / WEIGHTS_FILE_NAME


def load_version(models: Path, name: str, version: int) -> Model:
    """Read and check the weights of a version; see ``load_model``.

    Raises:
        WeightsFileError: The file cannot be used, or it is that of another version, because it was
            copied here.
    """
    path = weights_path(models, name, version)
    model = load_model(path)
    described = (model.metadata.name, model.metadata.version)
    if described != (name, version):
        raise WeightsFileError(
            f"{path}: expected version {version} of {name!r}, but it says that it is version "
            f"{described[1]} of {described[0]!r}; publish versions, do not copy them"
        )
    return model


def prepare(models: Path, name: str) -> None:
    """Make the folder of a model and prove that a version can be written to it.

    So that a training run learns before it begins, not after, that it cannot publish.

    Args:
        models: The models folder.
        name: The model's name; see ``is_model_name``.

    Raises:
        ModelsFolderError: The folder cannot be made or written to.
    """
    with _writing_to(models / name):
        _make_model_folder(models, name)
        _make_unfinished(models / name).rmdir()


def no_attachments(model: Model) -> Mapping[str, bytes]:  # noqa: ARG001 - as ``Attachments`` has it
    """Return no files."""
    return {}


def publish(models: Path, model: Model, *, attachments: Attachments = no_attachments) -> Model:
    """Write a model as the newest version of its name.

    Safe for any number of writers at once: each gets a number of its own. When this returns, the
    version is on disk; when it raises, there is nothing of it.

    A folder cannot be renamed onto one that is not empty. So where another writer was faster, the
    rename fails and nothing is lost: all is written again under the number after that.

    Args:
        models: The models folder; made if it is missing.
        model: The model; the version that its metadata names is replaced.
        attachments: Takes the model with its number, and returns the contents of other files by
            their names. They appear together with the weights. It is called again where another
            writer took the number; what it raises is raised, and then nothing is published.

    Returns:
        The model as it was published, read back from its file.

    Raises:
        ModelsFolderError: The folder cannot be written to, or the disk is full.
        WeightsFileError: The parameters are not finite, or so large that the network could
            overflow, or the network does not give the probabilities of its golden samples; nothing
            that cannot be loaded and checked is published.
        ValueError: An attachment has no plain file name, or that of the weights file.
    """
    name = model.metadata.name
    with _writing_to(models / name):
        _make_model_folder(models, name)
    version = 0
    while True:
        version = _next_version(models, name, version)
        numbered = replace(model, metadata=replace(model.metadata, version=version))
        files = attachments(numbered)
        _check_names(files)
        with _writing_to(models / name):
            published = _write_version(models, numbered, files)
        if published is not None:
            return published


def _next_version(models: Path, name: str, last: int) -> int:
    """Return the number after all that exist, and after the last one that was tried."""
    # What stood in the last one's way may be no version, a file for example.
    version = max(last, *versions(models, name), 0) + 1
    if not is_version(str(version)):
        raise ModelsFolderError(
            f"{models / name}: no number is left after {version - 1}; use another name"
        )
    return version


def _check_names(files: Mapping[str, bytes]) -> None:
    for name in files:
        # Some file systems take upper and lower case for the same.
        if not _ATTACHMENT_PATTERN.fullmatch(name) or name.lower() == WEIGHTS_FILE_NAME:
            raise ValueError(
                f"attachments: expected 1 to 64 letters, digits, '.', '_' or '-' as a file's name, "
                f"and not {WEIGHTS_FILE_NAME}, got {name[:80]!r}"
            )


def _write_version(models: Path, model: Model, files: Mapping[str, bytes]) -> Model | None:
    """Write a version and claim its number; return None where another writer has it."""
    target = weights_path(models, model.metadata.name, model.metadata.version).parent
    unfinished = _make_unfinished(target.parent)
    try:
        save_model(unfinished / WEIGHTS_FILE_NAME, model)
        published = _read_back(unfinished / WEIGHTS_FILE_NAME)
        for name, content in files.items():
            _write(unfinished / name, content)
        _sync_folder(unfinished)
        return published if _claim(unfinished, target) else None
    finally:
        # Gone already where the version was published.
        shutil.rmtree(unfinished, ignore_errors=True)


def _read_back(path: Path) -> Model:
    try:
        model = load_model(path)
        check_golden(model)
    except WeightsFileError as error:
        # Its path tells nobody anything: the file is about to go.
        raise WeightsFileError(f"not published: {error.__cause__ or error}") from error
    return model


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _claim(unfinished: Path, target: Path) -> bool:
    """Rename a folder to its number; return whether the number was free."""
    try:
        unfinished.rename(target)
    except OSError:
        # lexists: a link that leads nowhere stands in the way as well.
        if not os.path.lexists(target):
            raise
        return False
    _sync_folder(target.parent)
    return True


def _make_model_folder(models: Path, name: str) -> None:
    folder = models / name
    missing = [place for place in (models, folder) if not place.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        _sync_folder(place.parent)


def _make_unfinished(folder: Path) -> Path:
    # Not tempfile.mkdtemp: its folders are for their owner only, and the server is another user.
    unfinished = folder / f"{_UNFINISHED_PREFIX}{secrets.token_hex(8)}"
    unfinished.mkdir()
    return unfinished


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_folder(path: Path) -> bool:
    # Path.is_dir would, from Python 3.14 on, say False of a folder that may not be looked at.
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ModelsFolderError(f"{path}: cannot be read: {error.strerror}") from error


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


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelsFolderError(f"{folder}: cannot be written to: {error.strerror}") from error
