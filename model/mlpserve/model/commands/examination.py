"""A version as it is found in the folder: what it says of itself, and whether it can be used."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpserve.model.digests import read_digest
from mlpserve.model.errors import LabelsFileError, WeightsFileError
from mlpserve.model.folder import versions, weights_path
from mlpserve.model.labels import Label, read_labels
from mlpserve.model.metadata import Training
from mlpserve.model.versions import load_checked
from mlpserve.model.weights import Model


@dataclass(frozen=True, eq=False)
class Examined:
    """What was found of a version.

    Attributes:
        name: The model's name.
        version: The version's number.
        digest: What its digest file says; None where it has none, or a malformed one.
        model: The version, where it can be used.
        problem: Why it cannot be used, in a sentence; None where it can.
    """

    name: str
    version: int
    digest: str | None
    model: Model | None
    problem: str | None

    @property
    def training(self) -> Training | None:
        """Return how it was made, where it can be used."""
        return self.model.metadata.training if self.model else None


def examine(models: Path, name: str, version: int) -> Examined:
    """Check a version: its digest, format, shapes and values, and its golden samples."""
    digest = None
    try:
        digest = read_digest(weights_path(models, name, version).parent)
        return Examined(name, version, digest, load_checked(models, name, version), None)
    except WeightsFileError as error:
        return Examined(name, version, digest, None, str(error))


def examine_all(models: Path, name: str) -> Iterator[Examined]:
    """Check all versions of a model, the newest first.

    Raises:
        ModelsFolderError: The folder cannot be read.
    """
    for version in versions(models, name):
        found = examine(models, name, version)
        # One that is deleted meanwhile has no problem: it is not there.
        if found.problem is None or version in versions(models, name):
            yield found


def labels_of(labels: Mapping[str, Label], version: int) -> list[str]:
    """Return the labels that mean a version."""
    return [text for text, label in labels.items() if label.version == version]


def readable_labels(models: Path, name: str) -> tuple[dict[str, Label], list[str]]:
    """Return the labels of a model, and what is wrong with them, in sentences.

    Raises:
        ModelsFolderError: The folder cannot be read.
    """
    try:
        labels = read_labels(models, name)
    except LabelsFileError as error:
        return {}, [str(error)]
    found = versions(models, name)
    return labels, [
        f"{models / name}: label {text!r} means version {label.version}, which was deleted"
        for text, label in labels.items()
        if label.version not in found
    ]
