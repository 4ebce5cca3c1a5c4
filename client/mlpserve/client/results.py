"""Descriptions of models and of health: plain values, read from the messages of the server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from mlpserve.client.errors import ServerFaultError
from mlpserve.v1 import prediction_pb2

_MessageT = TypeVar("_MessageT", bound=Message)


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
        warnings: What looked like a mistake in the data or the result, a sentence each.
    """

    recipe: str
    seed: int
    data_name: str
    data_digest: str
    train_accuracy: float
    test_accuracy: float
    created_at: datetime
    warnings: tuple[str, ...] = ()


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
        value_range: The lowest and the highest value of its images, whatever their data type; None
            where it takes uint8 from 0 to 255, and floats from 0 to 1.
        ood_threshold: The out-of-distribution score above which an image does not look like those
            that it learned from; None where it has no such score.
    """

    version: int
    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    input_shape: tuple[int, ...]
    class_labels: tuple[str, ...]
    training: TrainingInfo
    value_range: tuple[float, float] | None = None
    ood_threshold: float | None = None


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
        value_range=(
            (version.value_range.low, version.value_range.high)
            if version.HasField("value_range")
            else None
        ),
        ood_threshold=version.ood_threshold if version.HasField("ood_threshold") else None,
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
        warnings=tuple(training.warnings),
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
