"""``mlpserve-models show``: all that is known of one version."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlpserve.model.commands.examination import Examined, examine, labels_of, readable_labels
from mlpserve.model.commands.lines import percent, printable
from mlpserve.model.errors import ModelsFolderError, WeightsFileError
from mlpserve.model.folder import weights_path
from mlpserve.model.labels import Label
from mlpserve.model.metadata import Calibration, Training
from mlpserve.model.references import find_version, parse_reference
from mlpserve.model.weights import Model


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
        yield json.dumps(
            {
                "name": found.name,
                "version": found.version,
                "folder": str(folder),
                "labels": labels_of(labels, found.version),
                "digest": found.digest,
                "files": _files(folder),
                "metadata": json.loads(found.model.metadata.to_json()),
            }
        )
        return
    yield f"{found.name} version {found.version}"
    facts = {**_place(found, folder, labels), **_network(found.model), **_made(found.model)}
    width = max(map(len, facts))
    for fact, text in facts.items():
        yield f"  {fact.ljust(width)}  {printable(text)}".rstrip()
    yield from map(printable, problems)


def _files(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:  # it may be deleted meanwhile
        raise ModelsFolderError(f"{folder}: cannot be read: {error.strerror}") from error


def _place(found: Examined, folder: Path, labels: Mapping[str, Label]) -> dict[str, str]:
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


def _network(model: Model) -> dict[str, str]:
    metadata = model.metadata
    count = sum(parameter.size for parameter in model.network.parameters)
    return {
        "layers": f"{'-'.join(map(str, metadata.layer_sizes))}, {count:,} parameters",
        "activations": _listed(metadata.activations),
        "input": f"{' x '.join(map(str, metadata.input.shape))} values",
        "classes": _listed(metadata.class_labels),
        "golden samples": str(len(model.golden.images)) if model.golden else "-",
    }


def _made(model: Model) -> dict[str, str]:
    training = model.metadata.training
    return {
        "trained at": f"{training.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "recipe": f"{training.recipe}, seed {training.seed}",
        "settings": _pairs(training.hyperparameters),
        "data": f"{training.data_name} ({training.data_digest})",
        **_quality(training),
        "made with": _pairs(training.library_versions),
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


def _listed(values: "tuple[object, ...] | list[str]") -> str:
    return ", ".join(map(str, values))


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "-"
