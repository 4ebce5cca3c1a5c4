"""A model of a models folder, run in this process: a predictor without a server."""

import argparse
import hashlib
import tempfile
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from mlpserve.client import InvalidRequestError, NotFoundError, Predictions
from mlpserve.client.arrays import as_wire_array
from mlpserve.client.predict.predictors import no_scores
from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.digests import read_digest
from mlpserve.model.errors import ModelError, WeightsFileError
from mlpserve.model.folder import model_names, weights_path
from mlpserve.model.inputs import InputSpec
from mlpserve.model.labels import STABLE, read_labels
from mlpserve.model.references import Reference, find_version
from mlpserve.model.versions import load_checked
from mlpserve.model.weights import Model, check_golden, load_model


@dataclass(frozen=True)
class Weights:
    """The weights file of one version, which can be sent to other machines.

    Attributes:
        name: The model.
        version: The version of it.
        content: The file.
        digest: Its SHA-256.
    """

    name: str
    version: int
    content: bytes = field(repr=False)
    digest: str


def read_weights(models: Path, options: argparse.Namespace) -> Weights:
    """Return the weights that are asked for, checked as a server would.

    Args:
        models: The folder.
        options: Which model and version are asked for; as with a server, that is the version of the
            label ``stable``, or else the newest, where nothing is said.

    Raises:
        NotFoundError: It is not there, or cannot be used.
    """
    try:
        reference = _reference(models, options)
        version = find_version(reference)
        load_checked(models, reference.name, version)
        path = weights_path(models, reference.name, version)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if read_digest(path.parent) not in (None, digest):
            raise WeightsFileError(f"{path}: changed while it was read")
    except ModelError as error:
        raise NotFoundError(str(error)) from error
    except OSError as error:
        raise NotFoundError(f"{models}: cannot be read: {error.strerror}") from error
    return Weights(reference.name, version, content, digest)


def load_weights(weights: Weights) -> Model:
    """Return the model of a weights file, checked once more on this machine.

    Raises:
        WeightsFileError: They are not those that were read, or this machine computes something
            else with them.
    """
    digest = hashlib.sha256(weights.content).hexdigest()
    if digest != weights.digest:
        raise WeightsFileError(
            f"version {weights.version} of {weights.name!r}: expected the weights with the SHA-256 "
            f"{weights.digest}, got {digest}"
        )
    with tempfile.NamedTemporaryFile() as file:
        file.write(weights.content)
        file.flush()
        model = load_model(Path(file.name))
    check_golden(model)
    return model


class LocalModel:
    """A model that is run in this process; see ``Predictor``.

    It answers, to the bit, what a server started with ``--reproducible`` does, and what any other
    does but for rounding. So an image's answer does not depend on where a run was resumed.

    Args:
        weights: Its weights.
        ood_scores: Whether scores are asked for.

    Raises:
        ClientError: It has no scores, though these are asked for.
        WeightsFileError: As for ``load_weights``.
    """

    at_once = 2  # one is computed while the next is read

    def __init__(self, weights: Weights, *, ood_scores: bool) -> None:
        model = load_weights(weights)
        if ood_scores and model.detector is None:
            raise no_scores(model.metadata.name, model.metadata.version)
        self._detector = model.detector if ood_scores else None
        self._compiled = CompiledModel(model, reproducible=True)
        self._workspace = Workspace()
        self._lock = threading.Lock()
        self.weights = weights
        self.digest = weights.digest
        self.model_name = model.metadata.name
        self.version = model.metadata.version
        self.input_shape = model.metadata.input.shape
        self.class_labels = model.metadata.class_labels
        limits = model.metadata.input.value_range
        self.value_range = None if limits is None else (limits.low, limits.high)
        self.data_name = model.metadata.training.data_name

    def predict(self, images: npt.NDArray[Any]) -> Predictions:
        """See ``Predictor.predict``."""
        flat = as_wire_array(images)
        _check(flat, self._compiled.metadata.input)
        with self._lock:
            found = self._compiled.classify([flat], self._workspace)
        answer = Predictions(found.labels, found.probabilities, self.model_name, self.version)
        if self._detector is None:
            return answer
        scores = self._detector.scores(flat, found.probabilities, self._compiled.metadata.input)
        return replace(answer, ood_scores=scores, ood_threshold=self._detector.threshold)


def _reference(models: Path, options: argparse.Namespace) -> Reference:
    name = options.model or _only_model(models)
    if options.version or options.label:
        return Reference(models, name, version=options.version or None, label=options.label or None)
    label = STABLE if STABLE in read_labels(models, name) else None
    return Reference(models, name, label=label)


def _only_model(models: Path) -> str:
    names = model_names(models)
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise NotFoundError(f"{models}: expected one model, or its name with --model; got {found}")
    return names[0]


def _check(images: npt.NDArray[Any], spec: InputSpec) -> None:
    """Check that (N, D) images are such as a server would take."""
    if images.shape[1] != spec.values_per_image:
        described = " x ".join(map(str, spec.shape))
        raise InvalidRequestError(
            f"images: expected images of {described} values, got {images.shape[1]} an image"
        )
    if (problem := spec.problem(images)) is not None:
        raise InvalidRequestError(f"images: {problem}")
