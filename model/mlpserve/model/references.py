"""References: versions as people name them.

``MODELS/NAME:VERSION``, or ``MODELS/NAME:LABEL``, or ``MODELS/NAME`` for the newest.
"""

from dataclasses import dataclass
from pathlib import Path

from mlpserve.model.command_line import user_path
from mlpserve.model.errors import NoVersionError
from mlpserve.model.folder import (
    is_model_name,
    is_version,
    no_label,
    no_model,
    no_version,
    versions,
)
from mlpserve.model.labels import is_label, read_labels
from mlpserve.model.versions import load_version
from mlpserve.model.weights import Model


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
