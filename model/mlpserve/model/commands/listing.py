"""``mlpserve-models list`` and ``show``: what is in the models folder."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from mlpserve.model.commands.examination import (
    Examined,
    examine_all,
    labels_of,
    readable_labels,
)
from mlpserve.model.commands.lines import percent, printable, table
from mlpserve.model.folder import model_names
from mlpserve.model.labels import Label

DIGEST_DIGITS: Final = 12
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
        found.digest[:DIGEST_DIGITS] if found.digest else "-",
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
