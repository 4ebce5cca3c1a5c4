"""Networks of the models folder: the weights and reports that the page shows."""

import base64
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.errors import ModelError
from mlpserve.model.folder import weights_path
from mlpserve.model.weights import Model, load_model

# The page computes the network by itself; more would take long to load and to show.
MAX_PARAMETERS: Final = 4_000_000


class Networks:
    """The versions of a models folder, read when they are asked for.

    Args:
        folder: The models folder that the server serves; None where it is not at hand.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._model = lru_cache(maxsize=8)(self._load)

    def absence(self, name: str, version: int) -> str:
        """Return why the weights of a version cannot be shown."""
        if self._folder is None:
            return "the playground was started without --models, the folder that is served"
        return (
            f"version {version} of {name!r} is not in the models folder, or too large to be shown"
        )

    def weights_bytes(self, name: str, version: int) -> int | None:
        """Return the size of a version's weights file; None where it is not at hand."""
        path = self._path(name, version)
        return None if path is None else path.stat().st_size

    def report(self, name: str, version: int) -> Path | None:
        """Return the path of a version's report; None where there is none."""
        path = self._path(name, version)
        report = None if path is None else path.with_name("report.html")
        return report if report is not None and report.is_file() else None

    def layers(self, name: str, version: int) -> list[dict[str, Any]] | None:
        """Return the layers of a version, as JSON has them; None where they cannot be shown."""
        model = self._model(name, version)
        if model is None:
            return None
        return [
            {
                "activation": layer.activation,
                "inputs": layer.weights.shape[0],
                "outputs": layer.weights.shape[1],
                "weights": _encoded(layer.weights),
                "bias": _encoded(layer.bias),
            }
            for layer in model.network.layers
        ]

    def _load(self, name: str, version: int) -> Model | None:
        path = self._path(name, version)
        if path is None:
            return None
        try:
            model = load_model(path)
        except (ModelError, OSError):
            return None
        is_small = sum(array.size for array in model.network.parameters) <= MAX_PARAMETERS
        return model if is_small else None

    def _path(self, name: str, version: int) -> Path | None:
        """Return the weights file of a version that is in the folder, found by listing it."""
        if self._folder is None or version < 1:
            return None
        if name not in {entry.name for entry in self._folder.iterdir() if entry.is_dir()}:
            return None
        path = weights_path(self._folder, name, version)
        return path if path.is_file() else None


def _encoded(array: npt.NDArray[np.floating[Any]]) -> str:
    """Return the values as float32, little-endian, in base64."""
    return base64.b64encode(array.astype("<f4").tobytes()).decode()
