"""Results of calls: plain values, read from the messages of the wire contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from mlpserve.client.errors import ServerFaultError
from mlpserve.v1 import prediction_pb2

_MessageT = TypeVar("_MessageT", bound=Message)
_BYTES_PER_VALUE: Final = 4  # of an int32 label and of a float32 probability


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answer to a batch of images, one row an image, in their order.

    Attributes:
        labels: (N,) int32, the index of the most probable class of each image in the model's
            class labels.
        probabilities: (N, K) float32, the probability of each class; each row sums to 1.
        model_name: The model that answered.
        model_version: The version of it that answered, for all images.
    """

    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    model_name: str
    model_version: int

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, images: slice) -> "Predictions":
        """Return the predictions of a slice of the images; views, nothing is copied."""
        return replace(self, labels=self.labels[images], probabilities=self.probabilities[images])


@dataclass(frozen=True)
class TrainingInfo:
    """The training of a version, and how good it became.

    Attributes:
        recipe: The recipe's name.
        seed: The seed of all randomness in the training.
        data_name: The data it learned from.
        data_digest: The digest of that data.
        train_accuracy: The share of the training images classified rightly, 0 to 1.
        test_accuracy: The same of the test images.
        created_at: When it was made; UTC.
    """

    recipe: str
    seed: int
    data_name: str
    data_digest: str
    train_accuracy: float
    test_accuracy: float
    created_at: datetime


@dataclass(frozen=True)
class VersionInfo:
    """One version of a model.

    Attributes:
        version: Its number.
        layer_sizes: The width of each layer, the input first.
        activations: The activation of each layer but the input.
        input_shape: The shape of one image.
        class_labels: What each class is called.
        training: How it was made.
    """

    version: int
    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    input_shape: tuple[int, ...]
    class_labels: tuple[str, ...]
    training: TrainingInfo


@dataclass(frozen=True)
class ShadowInfo:
    """A shadow: a version that classifies, unseen, what the default version has answered.

    Counts are since the server started, of just these two versions.

    Attributes:
        label: The label that means it.
        version: Its number.
        compared_images: So many images it has classified.
        agreeing_images: So many of these it gave the class that was answered.
        dropped_images: So many were left out, because the server had too much else to do.
        failed_images: So many it could not classify.
    """

    label: str
    version: int
    compared_images: int
    agreeing_images: int
    dropped_images: int
    failed_images: int


@dataclass(frozen=True)
class ModelInfo:
    """A model, as a server serves it.

    Attributes:
        name: The model's name.
        versions: Those of its versions that are served, the newest first; none where all of them
            failed their checks.
        max_batch_images: The most images that one request may carry.
        labels: The version that each label means.
        default_version: The version that answers where neither a version nor a label is asked for;
            0 where none is served, and with servers of earlier releases.
        quarantined_versions: Versions that are not served, because they failed their checks, the
            newest first, and why, in a sentence.
        shadow: How the version of a second label does on the same images; None where none is
            compared.
    """

    name: str
    versions: tuple[VersionInfo, ...]
    max_batch_images: int
    labels: Mapping[str, int] = field(default_factory=dict)
    default_version: int = 0
    quarantined_versions: Mapping[int, str] = field(default_factory=dict)
    shadow: ShadowInfo | None = None


def parse(kind: type[_MessageT], data: bytes) -> _MessageT:
    """Return a message of the wire contract.

    Raises:
        ServerFaultError: The bytes are none of that kind.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ServerFaultError(f"answer: expected a {kind.__name__}: {error}") from error


def read_predictions(data: bytes, count: int) -> Predictions:
    """Return the predictions in the answer to ``count`` images; read-only views of its bytes.

    Args:
        data: A PredictResponse, or a PredictStreamResponse, which is written alike.
        count: The number of images that it must be about.

    Raises:
        ServerFaultError: It is no such message, or does not fit the request.
    """
    response = parse(prediction_pb2.PredictResponse, data)
    column_bytes = count * _BYTES_PER_VALUE
    sizes = len(response.labels), len(response.probabilities)
    if sizes[0] != column_bytes or not sizes[1] or sizes[1] % column_bytes:
        raise ServerFaultError(
            f"answer: expected {column_bytes} bytes of labels of {count} images, and a multiple of "
            f"that of probabilities, got {sizes[0]} and {sizes[1]}"
        )
    labels = np.frombuffer(response.labels, "<i4")
    probabilities = np.frombuffer(response.probabilities, "<f4").reshape(count, -1)
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ServerFaultError(
            f"answer: expected labels below {probabilities.shape[1]}, the number of classes, "
            f"got {labels.min()} to {labels.max()}"
        )
    return Predictions(
        labels=labels,
        probabilities=probabilities,
        model_name=response.model_name,
        model_version=response.model_version,
    )


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several requests, at least one, as one answer.

    Raises:
        ServerFaultError: They are not from the one version of the one model that was asked.
    """
    if len(parts) == 1:
        return parts[0]
    sources = {(part.model_name, part.model_version, part.probabilities.shape[1]) for part in parts}
    if len(sources) > 1:
        raise ServerFaultError(
            f"answer: expected one name, version and number of classes, got {sorted(sources)}"
        )
    return Predictions(
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        model_name=parts[0].model_name,
        model_version=parts[0].model_version,
    )


def read_model(model: prediction_pb2.Model) -> ModelInfo:
    """Return the description of a model.

    Raises:
        ServerFaultError: It has no name.
    """
    if not model.name:
        raise ServerFaultError("answer: expected a model, got one without a name")
    return ModelInfo(
        name=model.name,
        versions=tuple(_read_version(version) for version in model.versions),
        max_batch_images=model.max_batch_images,
        labels={label.label: label.version for label in model.labels},
        default_version=model.default_version,
        quarantined_versions={
            quarantined.version: quarantined.reason for quarantined in model.quarantined_versions
        },
        shadow=_read_shadow(model.shadow) if model.HasField("shadow") else None,
    )


def _read_shadow(shadow: prediction_pb2.Shadow) -> ShadowInfo:
    return ShadowInfo(
        label=shadow.label,
        version=shadow.version,
        compared_images=shadow.compared_images,
        agreeing_images=shadow.agreeing_images,
        dropped_images=shadow.dropped_images,
        failed_images=shadow.failed_images,
    )


def _read_version(version: prediction_pb2.ModelVersion) -> VersionInfo:
    return VersionInfo(
        version=version.version,
        layer_sizes=tuple(version.layer_sizes),
        activations=tuple(version.activations),
        input_shape=tuple(version.input_shape),
        class_labels=tuple(version.class_labels),
        training=_read_training(version.training),
    )


def _read_training(training: prediction_pb2.Training) -> TrainingInfo:
    return TrainingInfo(
        recipe=training.recipe,
        seed=training.seed,
        data_name=training.data_name,
        data_digest=training.data_digest,
        train_accuracy=training.train_accuracy,
        test_accuracy=training.test_accuracy,
        created_at=training.create_time.ToDatetime(UTC),
    )


class HealthStatus(StrEnum):
    """The health of a server, as the health checks of gRPC have it."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"


def read_health(data: bytes) -> HealthStatus:
    """Return the status in a HealthCheckResponse: one number, left out where it is 0.

    Read by hand, because grpcio-health-checking would be one more package for one number.
    """
    return _HEALTH_OF_RESPONSE.get(data, HealthStatus.UNKNOWN)


_HEALTH_OF_RESPONSE: Final = {
    b"\x08\x01": HealthStatus.SERVING,
    b"\x08\x02": HealthStatus.NOT_SERVING,
}
