"""Predictors: what answers; here a server. The network itself does in ``local``."""

import argparse
from typing import Any, Protocol

import numpy.typing as npt

from mlpserve.client import Client, ClientError, ModelInfo, NotFoundError, Predictions, VersionInfo
from mlpserve.client.arguments import checked_text
from mlpserve.client.predict.batches import MAX_ROWS


class Predictor(Protocol):
    """What classifies images by one version of one model. Safe to use from many threads.

    Attributes:
        model_name: The model.
        version: The version of it.
        digest: The SHA-256 of its weights; empty where a server keeps that to itself.
        input_shape: The shape of one image.
        class_labels: What each class is called.
        value_range: The lowest and the highest value of its images; None for bytes.
        data_name: What the version was trained on.
        at_once: So many calls of ``predict`` at once make sense.

    With ``--ood-scores``, its predictions have out-of-distribution scores.
    """

    model_name: str
    version: int
    digest: str
    input_shape: tuple[int, ...]
    class_labels: tuple[str, ...]
    value_range: tuple[float, float] | None
    data_name: str
    at_once: int

    def predict(self, images: npt.NDArray[Any]) -> Predictions:
        """Classify images.

        Raises:
            InvalidRequestError: They are not what the model takes.
            ClientError: The call failed.
        """


class ServedModel:
    """A model that a server serves; its version stays the same, whatever the server takes up.

    Calls, not a stream: each has a deadline of its own, and is tried again where the server is
    away for a moment.

    Args:
        client: Of the server.
        options: Which model and version are asked for.

    Raises:
        ClientError: It is not served, has no scores though these are asked for, or the server
            cannot be asked.
    """

    at_once = 4
    digest = ""

    def __init__(self, client: Client, options: argparse.Namespace) -> None:
        name = checked_text(options.model, "model")
        served = client.model(name, version=options.version, label=options.label)
        described = _answering(served)
        if options.ood_scores and described.ood_threshold is None:
            raise no_scores(served.name, described.version)
        self._are_scored: bool = options.ood_scores
        self._client = client
        self._max_images = min(MAX_ROWS, served.max_batch_images)
        self.model_name = served.name
        self.version = described.version
        self.input_shape = described.input_shape
        self.class_labels = described.class_labels
        self.value_range = described.value_range
        self.data_name = described.training.data_name

    def predict(self, images: npt.NDArray[Any]) -> Predictions:
        """See ``Predictor.predict``."""
        return self._client.predict(
            images,
            model=self.model_name,
            version=self.version,
            max_images_per_request=self._max_images,
            ood_scores=self._are_scored,
        )


def no_scores(model: str, version: int) -> ClientError:
    """Return the error of ``--ood-scores`` with a version that has none."""
    return ClientError(
        f"--ood-scores: version {version} of {model!r} has no out-of-distribution score, because "
        "an earlier release trained or serves it, or too few images were at hand; train it again, "
        "or leave the flag out"
    )


def _answering(served: ModelInfo) -> VersionInfo:
    """Return the default version, or the only one, where one was asked for."""
    if not served.versions:
        reasons = "; ".join(served.quarantined_versions.values()) or "the server gives no reason"
        raise NotFoundError(f"model: no version of {served.name!r} is served: {reasons}")
    described = {version.version: version for version in served.versions}
    return described.get(served.default_version, served.versions[0])
