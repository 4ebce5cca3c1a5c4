"""Versions as people name them: ``MODELS/NAME:VERSION``, or without a number for the newest."""

from dataclasses import dataclass
from pathlib import Path

from mlpserve.model.errors import NoVersionError
from mlpserve.model.folder import is_model_name, is_version, versions
from mlpserve.model.missing import no_model, no_version
from mlpserve.model.versions import load_version
from mlpserve.model.weights import Model


@dataclass(frozen=True)
class Reference:
    """What was named; nothing is said of whether it is there.

    Attributes:
        models: The models folder.
        name: The model's name.
        version: The version's number; None for the newest.
    """

    models: Path
    name: str
    version: int | None


def parse_reference(text: str, *, models: Path | None = None) -> Reference:
    """Read what a person wrote.

    Args:
        text: ``MODELS/NAME[:VERSION]``; only ``NAME[:VERSION]`` where ``models`` is given.
        models: The models folder, where it is known already.

    Raises:
        NoVersionError: It is written otherwise.
    """
    # Neither a name nor a number has a colon or a slash, so those of the folder do no harm.
    place, last = (models, text) if models else (Path(text).parent, Path(text).name)
    name, colon, number = last.partition(":")
    if not is_model_name(name):
        folder = "" if models else "MODELS/"
        raise NoVersionError(
            f"model: expected {folder}NAME or {folder}NAME:VERSION, got {text[:200]!r}"
        )
    if colon and not is_version(number):
        raise NoVersionError(
            f"model: expected a version's number after the colon, as in {name}:1, or neither for "
            f"the newest, got {text[:200]!r}"
        )
    return Reference(place, name, int(number) if colon else None)


def load_reference(reference: Reference) -> Model:
    """Load the version that was named.

    Raises:
        NoVersionError: There is no such model, or no such version of it.
        ModelsFolderError: The folder cannot be read.
        WeightsFileError: The version's file cannot be used.
    """
    models, name = reference.models, reference.name
    found = versions(models, name)
    if not found:
        raise no_model(models, name)
    version = found[0] if reference.version is None else reference.version
    if version not in found:
        raise no_version(models / name, version, found)
    return load_version(models, name, version)
