"""The versions in a models folder, as they are loaded and published.

Other files may appear together with the weights of a version; what is in them is their readers'
business. Knows no network.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from mlpserve.model.atomic_files import (
    make_folder,
    make_temporary_folder,
    sync_folder,
    write_file,
)
from mlpserve.model.digests import DIGEST_FILE_NAME, check_digest, digest_line
from mlpserve.model.errors import LabelsFileError, ModelsFolderError, WeightsFileError
from mlpserve.model.folder import (
    WEIGHTS_FILE_NAME,
    is_version,
    locked,
    versions,
    weights_path,
    writing_to,
)
from mlpserve.model.labels import read_labels
from mlpserve.model.metadata import Metadata
from mlpserve.model.weights import Model, check_golden, load_model, save_model

# What goes beside the weights of a version whose number is known: contents by the files' names.
Attachments: TypeAlias = Callable[[Model], Mapping[str, bytes]]

_OWN_FILES: Final = (WEIGHTS_FILE_NAME, DIGEST_FILE_NAME)
_ATTACHMENT_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def load_version(models: Path, name: str, version: int) -> Model:
    """Read and check the weights of a version; see ``load_model``.

    Raises:
        WeightsFileError: The file cannot be used, was changed after it was published, or is that of
            another version, because it was copied here.
    """
    path = weights_path(models, name, version)
    model = load_model(path)
    check_digest(path.parent)
    described = (model.metadata.name, model.metadata.version)
    if described != (name, version):
        raise WeightsFileError(
            f"{path}: expected version {version} of {name!r}, but it says that it is version "
            f"{described[1]} of {described[0]!r}; publish versions, do not copy them"
        )
    return model


def load_checked(models: Path, name: str, version: int) -> Model:
    """Read a version and check all that can be checked here: also its golden samples.

    Raises:
        WeightsFileError: As for ``load_version``, or the network does not give the probabilities
            of its golden samples.
    """
    model = load_version(models, name, version)
    check_golden(model)
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
    with writing_to(models / name):
        make_folder(models / name)
        make_temporary_folder(models / name).rmdir()


def no_attachments(model: Model) -> Mapping[str, bytes]:  # noqa: ARG001 - as ``Attachments`` has it
    """Return no files."""
    return {}


def publish(models: Path, model: Model, *, attachments: Attachments = no_attachments) -> Model:
    """Write a model as the newest version of its name.

    Safe for any number of writers at once: each gets a number of its own. When this returns, the
    version is on disk; when it raises, there is nothing of it.

    A number is claimed by renaming a finished folder to it, under the model's lock, and only while
    no newer version is there. So where another writer was faster, all is written again under a
    later number, even if the other's version was pruned meanwhile. The rename fails onto a folder
    that is not empty, so that also without locks no version is written over.

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
        ValueError: An attachment has no plain file name, or that of a file of ours.
    """
    name = model.metadata.name
    with writing_to(models / name):
        make_folder(models / name)
    version = 0
    while True:
        version = _next_version(models, name, version)
        numbered = replace(model, metadata=replace(model.metadata, version=version))
        files = attachments(numbered)
        _check_names(files)
        with writing_to(models / name):
            published = _write_version(models, numbered, files)
        if published is not None:
            return published


def _next_version(models: Path, name: str, last: int) -> int:
    """Return the number after all that exist, that labels know, and that were tried."""
    # What stood in the last one's way may be no version, a file for example.
    version = max(last, 0, *versions(models, name), *_labelled(models, name)) + 1
    if not is_version(str(version)):
        raise ModelsFolderError(
            f"{models / name}: no number is left after {version - 1}; use another name"
        )
    return version


def _labelled(models: Path, name: str) -> Iterator[int]:
    """Yield the numbers that labels know, also those of versions that were deleted."""
    try:
        labels = read_labels(models, name).values()
    except LabelsFileError:
        return  # no reason not to publish
    for label in labels:
        # A label must not come to mean a version that nobody gave it to.
        yield from (label.version, *label.history)


def _check_names(files: Mapping[str, bytes]) -> None:
    for name in files:
        # Some file systems take upper and lower case for the same.
        if not _ATTACHMENT_PATTERN.fullmatch(name) or name.lower() in _OWN_FILES:
            raise ValueError(
                f"attachments: expected 1 to 64 letters, digits, '.', '_' or '-' as a file's name, "
                f"and not {' or '.join(_OWN_FILES)}, got {name[:80]!r}"
            )


def _write_version(models: Path, model: Model, files: Mapping[str, bytes]) -> Model | None:
    """Write a version and claim its number; return None where another writer has it."""
    temporary = make_temporary_folder(models / model.metadata.name)
    try:
        save_model(temporary / WEIGHTS_FILE_NAME, model)
        published = _read_back(temporary / WEIGHTS_FILE_NAME)
        write_file(temporary / DIGEST_FILE_NAME, digest_line(temporary / WEIGHTS_FILE_NAME))
        for name, content in files.items():
            write_file(temporary / name, content)
        sync_folder(temporary)
        return published if _claim(models, model.metadata, temporary) else None
    finally:
        # Gone already where the version was published.
        shutil.rmtree(temporary, ignore_errors=True)


def _read_back(path: Path) -> Model:
    try:
        model = load_model(path)
        check_golden(model)
    except WeightsFileError as error:
        # Its path tells nobody anything: the file is about to go.
        raise WeightsFileError(f"not published: {error.__cause__ or error}") from error
    return model


def _claim(models: Path, metadata: Metadata, temporary: Path) -> bool:
    """Rename a folder to its number; return whether the number was free."""
    with locked(models, metadata.name):
        if any(number > metadata.version for number in versions(models, metadata.name)):
            return False  # the number may have been another's, whose version was pruned
        return _rename(temporary, weights_path(models, metadata.name, metadata.version).parent)


def _rename(temporary: Path, target: Path) -> bool:
    try:
        temporary.rename(target)
    except OSError:
        # lexists: a link that leads nowhere stands in the way as well.
        if not os.path.lexists(target):
            raise
        return False
    sync_folder(target.parent)
    return True
