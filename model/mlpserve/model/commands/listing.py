"""``mlpserve-models list`` and ``show``: what is in the models folder, for people and as JSON."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from mlpserve.model.command_line import percent, printable, table
from mlpserve.model.commands.examination import (
    Examined,
    examine,
    examine_all,
    labels_of,
    readable_labels,
)
from mlpserve.model.errors import ModelsFolderError, WeightsFileError
from mlpserve.model.folder import model_names, weights_path
from mlpserve.model.labels import Label
from mlpserve.model.metadata import Calibration, Training
from mlpserve.model.out_of_distribution import OodDetector
from mlpserve.model.references import find_version, parse_reference
from mlpserve.model.weights import Model

_DIGEST_DIGITS: Final = 12
_HEADER: Final = (
    "model",
    "version",
    "labels",
    "test accuracy",
    "data",
    "trained (UTC)",
    "digest",
    "problem",
)
# The versions of a model, its labels, and what is wrong with these.
_Found: TypeAlias = tuple[list[Examined], Mapping[str, Label], list[str]]


def list_models(options: argparse.Namespace) -> Iterator[str]:
    """Yield a table of all versions of all models, or a JSON document.

    Raises:
        ModelsFolderError: A folder cannot be read.
    """
    found = {name: _found(options.models, name) for name in model_names(options.models)}
    if options.json:
        yield json.dumps({"models": [_document(name, *found[name]) for name in found]})
        return
    if not found:
        yield f"{options.models}: no models; train one with mlpserve-train"
        return
    yield from _table(found)


def show_version(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is known of a version, a line each, or as a JSON document.

    Raises:
        NoVersionError: There is no such version.
        WeightsFileError: It cannot be used.
        ModelsFolderError: The folder cannot be read.
        LabelsFileError: A label was named, and the labels cannot be read.
    """
    reference = parse_reference(options.model, models=options.models)
    found = examine(options.models, reference.name, find_version(reference))
    if found.model is None:
        raise WeightsFileError(str(found.problem))
    folder = weights_path(options.models, found.name, found.version).parent
    labels, problems = readable_labels(options.models, found.name)
    if options.json:
        yield json.dumps(_shown_document(found, found.model, folder, labels))
        return
    yield f"{found.name} version {found.version}"
    facts = {
        **_folder_facts(found, folder, labels),
        **_network_facts(found.model),
        **_training_facts(found.model),
    }
    width = max(map(len, facts))
    for fact, text in facts.items():
        yield f"  {fact.ljust(width)}  {printable(text)}".rstrip()
    yield from map(printable, problems)


def _found(models: Path, name: str) -> _Found:
    return list(examine_all(models, name)), *readable_labels(models, name)


def _table(found: Mapping[str, _Found]) -> Iterator[str]:
    rows = [_row(version, labels) for versions, labels, _ in found.values() for version in versions]
    # A column of its own only where there is something to say.
    columns = len(_HEADER) if any(row[-1] for row in rows) else len(_HEADER) - 1
    yield from table(_HEADER[:columns], [row[:columns] for row in rows])
    for _, _, problems in found.values():
        yield from map(printable, problems)


def _row(found: Examined, labels: Mapping[str, Label]) -> tuple[str, ...]:
    training = found.training
    return (
        found.name,
        str(found.version),
        ", ".join(labels_of(labels, found.version)) or "-",
        percent(training.test_accuracy if training else None),
        training.data_name if training else "-",
        f"{training.created_at:%Y-%m-%d %H:%M}" if training else "-",
        found.digest[:_DIGEST_DIGITS] if found.digest else "-",
        found.problem or "",
    )


def _document(
    name: str, versions: list[Examined], labels: Mapping[str, Label], problems: list[str]
) -> dict[str, Any]:
    return {
        "name": name,
        "labels": {
            text: {"version": label.version, "history": label.history}
            for text, label in labels.items()
        },
        "versions": [_version_document(version, labels) for version in versions],
        "problems": problems,
    }


def _version_document(found: Examined, labels: Mapping[str, Label]) -> dict[str, Any]:
    """Return what JSON says of a version; what is not known is null."""
    training = found.training
    return {
        "version": found.version,
        "labels": labels_of(labels, found.version),
        "test_accuracy": training.test_accuracy if training else None,
        "data": training.data_name if training else None,
        "created_at": training.created_at.isoformat() if training else None,
        "digest": found.digest,
        "problem": found.problem,
    }


def _shown_document(
    found: Examined, model: Model, folder: Path, labels: Mapping[str, Label]
) -> dict[str, Any]:
    return {
        "name": found.name,
        "version": found.version,
        "folder": str(folder),
        "labels": labels_of(labels, found.version),
        "digest": found.digest,
        "files": _files(folder),
        "metadata": json.loads(model.metadata.to_json()),
        "out_of_distribution": None
        if model.detector is None
        else {
            "threshold": model.detector.threshold,
            "test_share": model.detector.test_share,
        },
    }


def _files(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:  # it may be deleted meanwhile
        raise ModelsFolderError(f"{folder}: cannot be read: {error.strerror}") from error


def _folder_facts(found: Examined, folder: Path, labels: Mapping[str, Label]) -> dict[str, str]:
    described = [
        text + (f" (before: {_listed(labels[text].history)})" if labels[text].history else "")
        for text in labels_of(labels, found.version)
    ]
    return {
        "folder": str(folder),
        "files": _listed(_files(folder)),
        "labels": _listed(described) or "-",
        "SHA-256": found.digest or "-",
    }


def _network_facts(model: Model) -> dict[str, str]:
    metadata = model.metadata
    count = sum(parameter.size for parameter in model.network.parameters)
    return {
        "layers": f"{'-'.join(map(str, metadata.layer_sizes))}, {count:,} parameters",
        "activations": _listed(metadata.activations),
        "input": f"{' x '.join(map(str, metadata.input.shape))} values",
        "range": str(metadata.input.value_range or "0 to 255 as uint8, 0 to 1 as float"),
        "classes": _listed(metadata.class_labels),
        "golden samples": str(len(model.golden.images)) if model.golden else "-",
        "unlike its data": _out_of_distribution(model.detector) if model.detector else "-",
    }


def _out_of_distribution(detector: OodDetector) -> str:
    return (
        f"a score above {detector.threshold:.3f}, as {percent(detector.test_share)} of the test "
        "images have"
    )


def _training_facts(model: Model) -> dict[str, str]:
    training = model.metadata.training
    return {
        "trained at": f"{training.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "recipe": f"{training.recipe}, seed {training.seed}",
        "settings": _pairs(training.hyperparameters),
        "data": f"{training.data_name} ({training.data_digest})",
        **({"test images": training.test_origin} if training.test_origin else {}),
        **_quality(training),
        "made with": _pairs(training.library_versions),
        **({"warnings": " ".join(training.warnings)} if training.warnings else {}),
    }


def _quality(training: Training) -> dict[str, str]:
    return {
        "training accuracy": percent(training.train_accuracy),
        "validation accuracy": percent(training.validation_accuracy),
        "test accuracy": percent(training.test_accuracy),
        "calibration": _calibration(training.calibration) if training.calibration else "-",
    }


def _calibration(calibration: Calibration) -> str:
    return (
        f"temperature {calibration.temperature:.3f}, expected calibration error "
        f"{percent(calibration.expected_calibration_error_before)} before, "
        f"{percent(calibration.expected_calibration_error_after)} after"
    )


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "-"
