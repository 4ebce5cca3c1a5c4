"""``mlpserve-models verify``: checks of versions and labels; ``list`` and ``show`` share them."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpserve.model.command_line import printable
from mlpserve.model.digests import read_digest
from mlpserve.model.errors import LabelsFileError, WeightsFileError
from mlpserve.model.folder import model_names, versions, weights_path
from mlpserve.model.labels import Label, read_labels
from mlpserve.model.metadata import Training
from mlpserve.model.references import find_version, parse_reference
from mlpserve.model.versions import load_checked
from mlpserve.model.weights import Model


@dataclass(frozen=True, eq=False)
class Examined:
    """The findings about a version.

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


def verify(options: argparse.Namespace) -> Iterator[str]:
    """Check versions, and yield what was found of each, and of the labels.

    Raises:
        WeightsFileError: A version cannot be used, or a label has no version; after all is checked.
        NoVersionError: What was named is not there.
        ModelsFolderError: A folder cannot be read.
    """
    checked = failed = 0
    for line, is_good in _checks(options):
        yield line
        checked += 1
        failed += not is_good
    if failed:
        raise WeightsFileError(f"{failed} of {checked} checks failed")


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


def _checks(options: argparse.Namespace) -> Iterator[tuple[str, bool]]:
    """Yield what was found, and whether it is good."""
    if options.model is None:
        for name in model_names(options.models):
            yield from _checks_of_model(options.models, name)
        return
    reference = parse_reference(options.model, models=options.models)
    version = find_version(reference)
    if reference.version is None and reference.label is None:
        yield from _checks_of_model(options.models, reference.name)
    else:
        yield _check(examine(options.models, reference.name, version))


def _checks_of_model(models: Path, name: str) -> Iterator[tuple[str, bool]]:
    yield from map(_check, examine_all(models, name))
    for problem in readable_labels(models, name)[1]:
        yield f"{name}: {printable(problem)}", False


def _check(found: Examined) -> tuple[str, bool]:
    if found.problem is not None:
        return f"{found.name}:{found.version}: {printable(found.problem)}", False
    has_all = (
        found.digest is not None and found.model is not None and found.model.golden is not None
    )
    remark = "" if has_all else f", but {_lacks(found)}"
    return f"{found.name}:{found.version}: good{remark}", True


def _lacks(found: Examined) -> str:
    return "without " + " and ".join(
        what
        for what, is_missing in (
            ("a digest", found.digest is None),
            ("golden samples", found.model is not None and found.model.golden is None),
        )
        if is_missing
    )
