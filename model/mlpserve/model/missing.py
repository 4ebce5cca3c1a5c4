"""What to say where a models folder has nothing of the name that was asked for: what it has."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from mlpserve.model.errors import NoVersionError
from mlpserve.model.folder import is_folder, is_version, model_names, weights_path

_NAMES_IN_MESSAGE: Final = 10


def no_model(models: Path, name: str) -> NoVersionError:
    """Return the error for a model that is not there.

    Raises:
        ModelsFolderError: The folder cannot be read.
    """
    if not is_folder(models):
        return NoVersionError(f"{models}: there is no such folder")
    if is_version(name) and weights_path(models.parent, models.name, int(name)).exists():
        advice = f"did you mean {models}:{name}?"
    else:
        advice = f"it has {_listed(model_names(models))}"
    return NoVersionError(f"{models}: has no model {name!r}; {advice}")


def no_version(folder: Path, version: int, found: Sequence[int]) -> NoVersionError:
    """Return the error for a version that is not there.

    Args:
        folder: The model's folder.
        version: The version that was named.
        found: Those that are there, the newest first.
    """
    return NoVersionError(f"{folder}: has no version {version}; it has {_listed(found)}")


def no_label(folder: Path, label: str, found: Iterable[str]) -> NoVersionError:
    """Return the error for a label that a model does not have.

    Args:
        folder: The model's folder.
        label: The label that was named.
        found: Those that it has.
    """
    return NoVersionError(f"{folder}: has no label {label!r}; it has {_listed(list(found))}")


def _listed(values: Sequence[object]) -> str:
    listed = ", ".join(map(str, values[:_NAMES_IN_MESSAGE])) or "none"
    more = len(values) - _NAMES_IN_MESSAGE
    return f"{listed} and {more} more" if more > 0 else listed
