"""References: versions as people name them.

``MODELS/NAME:VERSION``, or ``MODELS/NAME:LABEL``, or ``MODELS/NAME`` for the newest. Where several
versions are named that may be anywhere, also the folder of a version or its weights file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlpserve.model.command_line import user_path
from mlpserve.model.errors import ModelsFolderError, NoVersionError
from mlpserve.model.folder import (
    WEIGHTS_FILE_NAME,
    is_model_name,
    is_version,
    no_label,
    no_model,
    no_version,
    versions,
    weights_path,
)
from mlpserve.model.labels import is_label, read_labels
from mlpserve.model.versions import load_version
from mlpserve.model.weights import Model

_WEIGHTS_ENDING: Final = Path(WEIGHTS_FILE_NAME).suffix


@dataclass(frozen=True)
class Reference:
    """A version that was named; nothing is said of whether it is there.

    Attributes:
        models: The models folder.
        name: The model's name.
        version: The version's number; None where a label was named, or nothing for the newest.
        label: The label; None where there is none.
    """

    models: Path
    name: str
    version: int | None = None
    label: str | None = None


def parse_reference(text: str, *, models: Path | None = None) -> Reference:
    """Read what a person wrote.

    Args:
        text: ``MODELS/NAME[:VERSION|:LABEL]``; only ``NAME[:VERSION|:LABEL]`` where ``models`` is
            given.
        models: The models folder, where it is known already.

    Raises:
        NoVersionError: It is written otherwise.
        NoHomeError: It is in the home folder, and there is none.
    """
    # Neither a name nor what follows it has a colon or a slash, so those of the folder do no harm.
    place, last = models, text
    if place is None:
        path = user_path(text)
        place, last = path.parent, path.name
    name, colon, which = last.partition(":")
    if not is_model_name(name):
        folder = "" if models else "MODELS/"
        raise NoVersionError(
            f"model: expected {folder}NAME, {folder}NAME:VERSION or {folder}NAME:LABEL, "
            f"got {text[:200]!r}"
        )
    if not colon:
        return Reference(place, name)
    if is_version(which):
        return Reference(place, name, version=int(which))
    if is_label(which):
        return Reference(place, name, label=which)
    raise NoVersionError(
        f"model: expected a version's number or a label after the colon, as in {name}:1 or "
        f"{name}:stable, or neither for the newest, got {text[:200]!r}"
    )


def find_version(reference: Reference) -> int:
    """Return the number of the version that was named.

    Raises:
        NoVersionError: There is no such model, or no such version or label of it.
        ModelsFolderError: The folder cannot be read.
        LabelsFileError: A label was named, and the labels cannot be read.
    """
    models, name = reference.models, reference.name
    found = versions(models, name)
    if not found:
        raise no_model(models, name)
    if reference.label is not None:
        return _meant(reference, reference.label, found)
    version = found[0] if reference.version is None else reference.version
    if version not in found:
        raise no_version(models / name, version, found)
    return version


def load_reference(reference: Reference) -> Model:
    """Load the version that was named.

    Raises:
        NoVersionError: As for ``find_version``.
        ModelsFolderError: As for ``find_version``.
        LabelsFileError: As for ``find_version``.
        WeightsFileError: The version's file cannot be used.
    """
    return load_version(reference.models, reference.name, find_version(reference))


def find_weights(text: str, *, models: Path) -> Path:
    """Return the weights file of a version, in whichever way a person names it.

    Args:
        text: ``NAME[:VERSION|:LABEL]`` or ``NAME/VERSION`` in the models folder; the folder of a
            version or a weights file anywhere; or ``MODELS/NAME[:VERSION|:LABEL]``.
        models: The models folder.

    Raises:
        NoVersionError: It is written otherwise, or there is no such model, version or label.
        ModelsFolderError: The folder cannot be read.
        LabelsFileError: A label was named, and the labels cannot be read.
        NoHomeError: It is in the home folder, and there is none.
    """
    if "/" not in text and not text.endswith(_WEIGHTS_ENDING):
        reference = parse_reference(text, models=models)
    else:
        path = user_path(text)
        for place in (path, models / path):
            if (file := _weights_at(place)) is not None:
                return file
        if path.suffix == _WEIGHTS_ENDING:
            raise NoVersionError(f"{path}: expected a weights file, but there is none")
        name, _, number = text.rpartition("/")
        if is_version(number) and is_model_name(name) and not path.is_dir():
            reference = Reference(models, name, version=int(number))
        else:
            reference = parse_reference(text)
    return weights_path(reference.models, reference.name, find_version(reference))


def _weights_at(place: Path) -> Path | None:
    """Return a weights file, or that of a version's folder; None where there is none."""
    file = place if place.suffix == _WEIGHTS_ENDING else place / WEIGHTS_FILE_NAME
    try:
        return file if file.is_file() else None
    except OSError as error:
        raise ModelsFolderError(f"{place}: cannot be read: {error.strerror}") from error


def _meant(reference: Reference, label: str, found: list[int]) -> int:
    folder = reference.models / reference.name
    labels = read_labels(reference.models, reference.name)
    if label not in labels:
        raise no_label(folder, label, labels)
    version = labels[label].version
    if version not in found:
        raise NoVersionError(
            f"{folder}: label {label!r} means version {version}, which was deleted; roll it back, "
            "or promote another"
        )
    return version
