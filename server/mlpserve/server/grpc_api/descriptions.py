"""Models as the wire contract describes them."""

from collections.abc import Sequence

from mlpserve.model.metadata import Training
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.inference.registry import ServedModel
from mlpserve.server.inference.shadow import Comparison
from mlpserve.v1 import prediction_pb2


def describe_model(
    name: str,
    model: ServedModel,
    versions: Sequence[CompiledModel],
    *,
    max_batch_images: int,
    comparison: Comparison | None = None,
) -> prediction_pb2.Model:
    """Return the description of a model.

    Args:
        name: Its name.
        model: What is served of it.
        versions: Those of its versions to describe; labels of others are left out.
        max_batch_images: The most images that one request may carry.
        comparison: How its shadow has done; None where it has none.
    """
    described = {version.metadata.version for version in versions}
    return prediction_pb2.Model(
        name=name,
        versions=[_describe_version(version) for version in versions],
        max_batch_images=max_batch_images,
        labels=[
            prediction_pb2.ModelLabel(label=label, version=version)
            for label, version in sorted(model.labels.items())
            if version in described
        ],
        default_version=model.default_version,
        quarantined_versions=[
            prediction_pb2.QuarantinedVersion(version=version, reason=reason)
            for version, reason in model.quarantined.items()
        ],
        shadow=None if comparison is None else _describe_comparison(comparison),
    )


def _describe_comparison(comparison: Comparison) -> prediction_pb2.Shadow:
    return prediction_pb2.Shadow(
        label=comparison.label,
        version=comparison.version,
        compared_images=comparison.counts.compared,
        agreeing_images=comparison.counts.agreeing,
        dropped_images=comparison.counts.dropped,
        failed_images=comparison.counts.failed,
    )


def _describe_version(model: CompiledModel) -> prediction_pb2.ModelVersion:
    metadata = model.metadata
    return prediction_pb2.ModelVersion(
        version=metadata.version,
        layer_sizes=metadata.layer_sizes,
        activations=metadata.activations,
        input_shape=metadata.input.shape,
        input_data_types=[prediction_pb2.DATA_TYPE_UINT8, prediction_pb2.DATA_TYPE_FLOAT32],
        class_labels=metadata.class_labels,
        training=_describe_training(metadata.training),
    )


def _describe_training(training: Training) -> prediction_pb2.Training:
    described = prediction_pb2.Training(
        recipe=training.recipe,
        seed=training.seed,
        data_name=training.data_name,
        data_digest=training.data_digest,
        train_accuracy=training.train_accuracy,
        test_accuracy=training.test_accuracy,
    )
    described.create_time.FromDatetime(training.created_at)
    return described
