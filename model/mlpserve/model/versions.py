"""The models folder: ``MODELS/NAME/VERSION/weights.npz``, read while others write.

A version appears in one step, by the rename of a folder that is complete. Whoever reads sees all of
a version or nothing of it, whatever happens to the writer. Knows no network.
"""

import os
import re
import secrets
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

from mlpserve.model.errors import ModelsFolderError, WeightsFileError
from mlpserve.model.metadata import is_model_name
from mlpserve.model.weights import WEIGHTS_FILE_NAME, Model, load_model, save_model

_VERSION_PATTERN: Final = re.compile(r"[1-9][0-9]{0,17}")  # fits in an int64
# Folders with a dot in front are nobody's version, so no reader looks into them.
_UNFINISHED_PREFIX: Final = ".unfinished-"


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
    numbers = (int(entry) for entry in _folder_names(folder) if _VERSION_PATTERN.fullmatch(entry))
    return sorted(numbers, reverse=True)


def _exists(models: Path, name: str) -> bool:
    try:
        return bool(versions(models, name))
    except ModelsFolderError:
        return True  # whoever asks for its versions is told what is wrong


def weights_path(models: Path, name: str, version: int) -> Path:
    """Return where the weights of a version are."""
    return models / name / str(version) / WEIGHTS_FILE_NAME


def prepare(models: Path, name: str) -> None:
    """Make the folder of a model and prove that a version can be written to it.

    So that a training run learns before it begins, not after, that it cannot publish.

    Args:
        models: The models folder.
        name: The model's name; see ``is_model_name``.

    Raises:
        ModelsFolderError: The folder cannot be made or written to.
    """
    try:
        _make_model_folder(models, name)
        _make_unfinished(models / name).rmdir()
    except OSError as error:
        raise _cannot_write(models / name, error) from error


def publish(models: Path, model: Model) -> Model:
    """Write a model as the newest version of its name.

    Safe for any number of writers at once: each gets a number of its own. When this returns, the
    version is on disk; when it raises, there is nothing of it.

    Args:
        models: The models folder; made if it is missing.
        model: The model; the version that its metadata names is replaced.

    Returns:
        The model as it was published, read back from its file.

    Raises:
        ModelsFolderError: The folder cannot be written to, or the disk is full.
        WeightsFileError: The parameters are not finite, or so large that the network could
            overflow; nothing that cannot be loaded is published.
    """
    folder = models / model.metadata.name
    try:
        _make_model_folder(models, model.metadata.name)
        unfinished = _make_unfinished(folder)
        try:
            return _claim(models, unfinished, model)
        finally:
            # Gone already where the version was published.
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _claim(models: Path, unfinished: Path, model: Model) -> Model:
    """Write the version under the next free number; the rename is what claims the number.

    A folder cannot be renamed onto one that is not empty. So where another writer was faster, the
    rename fails and nothing is lost: the file is written again with the number after that.
    """
    name = model.metadata.name
    version = 0
    while True:
        # Past the last try too: what stood in its way may be no version, a file for example.
        version = max(version, *versions(models, name), 0) + 1
        if not _VERSION_PATTERN.fullmatch(str(version)):
            raise ModelsFolderError(
                f"{models / name}: no number is left after {version - 1}; use another name"
            )
        numbered = Model(model.network, replace(model.metadata, version=version))
        save_model(unfinished / WEIGHTS_FILE_NAME, numbered)
        published = _read_back(unfinished / WEIGHTS_FILE_NAME)
        _sync_folder(unfinished)
        target = weights_path(models, name, version).parent
        try:
            unfinished.rename(target)
        except OSError:
            # lexists: a link that leads nowhere stands in the way as well.
            if not os.path.lexists(target):
                raise
        else:
            _sync_folder(target.parent)
            return published


def _read_back(path: Path) -> Model:
    try:
        return load_model(path)
    except WeightsFileError as error:
        # Its path tells nobody anything: the file is about to go.
        raise WeightsFileError(f"not published: {error.__cause__}") from error


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


def _cannot_write(folder: Path, error: OSError) -> ModelsFolderError:
    return ModelsFolderError(f"{folder}: cannot be written to: {error.strerror}")
