"""Labels: names for whichever version of a model is meant by them at the time.

They are in ``MODELS/NAME/labels.json``, beside the versions:

    {"format_version": 1, "labels": {"stable": {"version": 3, "history": [1, 2]}}}

The history has the versions that a label meant before, each once, the latest last. It is what a
label is rolled back to, and what serves for it where its version cannot be used.

The file is replaced in one step, so that whoever reads it, without a lock, sees all of a change or
nothing. Whoever changes it holds the model's lock meanwhile, so that of many changes at once none
is lost. Needs no NumPy.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlpserve.model.atomic_files import atomic_write
from mlpserve.model.document import Document, parse_document
from mlpserve.model.errors import LabelsFileError, NoVersionError, WeightsFileError
from mlpserve.model.folder import (
    MAX_VERSION,
    is_model_name,
    is_version,
    locked,
    no_label,
    no_version,
    open_file,
    versions,
    writing_to,
)

LABELS_FILE_NAME: Final = "labels.json"
STABLE: Final = "stable"
CANARY: Final = "canary"
FORMAT_VERSION: Final = 1
MAX_LABELS: Final = 100
MAX_HISTORY: Final = 100
# Beyond what the longest labels with the longest histories take.
MAX_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Label:
    """A label: the version that it means, and those that it meant before.

    Attributes:
        version: The version that it means.
        history: The versions that it meant before, each once, the latest last.
    """

    version: int
    history: tuple[int, ...] = ()

    def moved_to(self, version: int) -> "Label":
        """Return the label when it means another version; the same where it means it already."""
        if version == self.version:
            return self
        earlier = (*(number for number in self.history if number != version), self.version)
        return Label(version, earlier[-MAX_HISTORY:])


def is_label(text: str) -> bool:
    """Return whether a label may be called so: like a model, but never only digits."""
    return is_model_name(text) and not text.isdecimal()


def labels_path(models: Path, name: str) -> Path:
    """Return where the labels of a model are, if it has some."""
    return models / name / LABELS_FILE_NAME


def read_labels(models: Path, name: str) -> dict[str, Label]:
    """Return the labels of a model, in the order of their names; none where it has no such file.

    A version that a label means need not be there: it may be deleted at any time.

    Raises:
        LabelsFileError: The file is damaged or cannot be read; the message begins with its path.
    """
    # A name may come from a caller, and must not lead out of the models folder.
    if not is_model_name(name):
        return {}
    path = labels_path(models, name)
    try:
        return _labels(parse_document(_text(path), "document"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise LabelsFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, WeightsFileError) as error:
        raise LabelsFileError(
            f"{path}: {error}; mend it, or delete it and set the labels anew"
        ) from error


def set_label(models: Path, name: str, label: str, version: int) -> Label:
    """Have a label mean a version; what it meant before goes to its history.

    Args:
        models: The models folder.
        name: The model's name.
        label: The label, new or not; see ``is_label``.
        version: The version, which has to be there; whether it can be used is not looked at.

    Returns:
        What the label means now.

    Raises:
        NoVersionError: There is no such model or version, the label may not be called so, or the
            model has as many labels as it may have.
        LabelsFileError: The labels cannot be read; nothing is changed.
        ModelsFolderError: The folder cannot be read or written to; nothing is changed.
    """
    _check_name(label)
    with _changing(models, name) as labels:
        found = versions(models, name)
        if version not in found:
            raise no_version(models / name, version, found)
        if label not in labels and len(labels) >= MAX_LABELS:
            raise NoVersionError(f"{models / name}: has {MAX_LABELS} labels already; remove one")
        labels[label] = labels[label].moved_to(version) if label in labels else Label(version)
        return labels[label]


def remove_label(models: Path, name: str, label: str) -> None:
    """Take a label away, and its history with it.

    Raises:
        NoVersionError: There is no such model or label.
        LabelsFileError: As for ``set_label``.
        ModelsFolderError: As for ``set_label``.
    """
    with _changing(models, name) as labels:
        if label not in labels:
            raise no_label(models / name, label, labels)
        del labels[label]


def roll_back(models: Path, name: str, label: str) -> int:
    """Have a label mean again the latest version of its history that is still there.

    What it meant is forgotten, so that doing it again goes further back, and not forth.

    Returns:
        The version that the label means now.

    Raises:
        NoVersionError: There is no such model or label, or nothing to go back to.
        LabelsFileError: As for ``set_label``.
        ModelsFolderError: As for ``set_label``.
    """
    with _changing(models, name) as labels:
        if label not in labels:
            raise no_label(models / name, label, labels)
        earlier = earlier_version(labels[label], versions(models, name))
        if earlier is None:
            raise NoVersionError(
                f"{models / name}: label {label!r} means version {labels[label].version}, and "
                "none that it meant before is still there; name one to promote"
            )
        history = labels[label].history
        labels[label] = Label(earlier, history[: history.index(earlier)])
        return earlier


def earlier_version(label: Label, found: list[int]) -> int | None:
    """Return the version that a label would be rolled back to.

    Args:
        label: The label.
        found: The versions that are there.
    """
    return next((number for number in reversed(label.history) if number in found), None)


@contextmanager
def _changing(models: Path, name: str) -> Iterator[dict[str, Label]]:
    """Read labels, have the caller change them, and write them where they have changed."""
    with locked(models, name):
        before = read_labels(models, name)
        labels = dict(before)
        yield labels
        if labels != before:
            with writing_to(models / name), atomic_write(labels_path(models, name)) as file:
                file.write(_json(labels).encode())


def _check_name(label: str) -> None:
    if not is_label(label):
        raise NoVersionError(
            "label: expected 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, "
            f"and not only digits, got {label[:80]!r}"
        )


def _text(path: Path) -> str:
    with open_file(path) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise WeightsFileError(f"expected at most {MAX_FILE_BYTES} bytes, got more")
    return content.decode()


def _labels(document: Document) -> dict[str, Label]:
    document.get_integer("format_version", FORMAT_VERSION, FORMAT_VERSION)
    labels = document.get_document("labels")
    names = sorted(document.get_mapping("labels", dict))
    if len(names) > MAX_LABELS:
        raise WeightsFileError(f"document.labels: expected at most {MAX_LABELS}, got {len(names)}")
    return {name: _label(name, labels.get_document(name)) for name in names}


def _label(name: str, document: Document) -> Label:
    if not is_label(name):
        raise WeightsFileError(f"document.labels: expected no label called {name[:80]!r}")
    version = document.get_integer("version", 1, MAX_VERSION)
    history = document.get_tuple("history", int)
    if not all(is_version(str(number)) for number in history):
        raise WeightsFileError(f"document.labels.{name}.history: expected numbers of versions")
    if len({*history, version}) != len(history) + 1 or len(history) > MAX_HISTORY:
        raise WeightsFileError(
            f"document.labels.{name}.history: expected at most {MAX_HISTORY} versions, "
            "each once, and not the present one"
        )
    return Label(version, history)


def _json(labels: Mapping[str, Label]) -> str:
    described = {
        name: {"version": label.version, "history": label.history}
        for name, label in sorted(labels.items())
    }
    return json.dumps({"format_version": FORMAT_VERSION, "labels": described}) + "\n"
