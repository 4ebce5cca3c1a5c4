"""Descriptions of models as the protocol, and Triton's configuration, have them."""

from collections.abc import Sequence
from typing import Final

from mlpserve.model.folder import VersionKey
from mlpserve.oip import inference_pb2
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.inference.request import LOWEST_PRIORITY, NORMAL_PRIORITY
from mlpserve.server.oip.tensors import DATATYPES, INPUT_NAME, LABELS, PROBABILITIES
from mlpserve.server.telemetry.statistics import Duration, Figures, PassFigures

PLATFORM: Final = "mlpserve"
INPUT_DATATYPE: Final = "UINT8"  # of all that are accepted, the smallest and fastest
_Tensor = inference_pb2.ModelMetadataResponse.TensorMetadata


def metadata_message(
    model: CompiledModel, versions: Sequence[CompiledModel]
) -> inference_pb2.ModelMetadataResponse:
    """Return the description of a version of a model that is served in those versions."""
    classes = len(model.metadata.class_labels)
    values = model.metadata.input.values_per_image
    return inference_pb2.ModelMetadataResponse(
        name=model.metadata.name,
        versions=[str(version.metadata.version) for version in versions],
        platform=PLATFORM,
        inputs=[_Tensor(name=INPUT_NAME, datatype=INPUT_DATATYPE, shape=[-1, values])],
        outputs=[
            _Tensor(name=PROBABILITIES, datatype=DATATYPES[PROBABILITIES], shape=[-1, classes]),
            _Tensor(name=LABELS, datatype=DATATYPES[LABELS], shape=[-1]),
        ],
    )


def config_message(
    model: CompiledModel, versions: Sequence[CompiledModel], *, max_batch_images: int
) -> inference_pb2.ModelConfig:
    """Return the configuration of a version of a model that is served in those versions."""
    config = inference_pb2.ModelConfig(
        name=model.metadata.name,
        platform=PLATFORM,
        backend=PLATFORM,
        max_batch_size=max_batch_images,
        instance_group=[
            inference_pb2.ModelInstanceGroup(
                name=PLATFORM, count=1, kind=inference_pb2.ModelInstanceGroup.KIND_CPU
            )
        ],
        dynamic_batching=inference_pb2.ModelDynamicBatching(
            priority_levels=LOWEST_PRIORITY, default_priority_level=NORMAL_PRIORITY
        ),
    )
    numbers = [version.metadata.version for version in versions]
    config.version_policy.specific.versions.extend(numbers)
    values = model.metadata.input.values_per_image
    config.input.add(name=INPUT_NAME, data_type=inference_pb2.TYPE_UINT8, dims=[values])
    classes = len(model.metadata.class_labels)
    config.output.add(name=PROBABILITIES, data_type=inference_pb2.TYPE_FP32, dims=[classes])
    config.output.add(name=LABELS, data_type=inference_pb2.TYPE_INT32)
    return config


def statistics_message(key: VersionKey, figures: Figures) -> inference_pb2.ModelStatistics:
    """Return the figures of a version of a model."""
    by_request = figures.by_request
    return inference_pb2.ModelStatistics(
        name=key.name,
        version=str(key.version),
        last_inference=figures.last_pass_ms,
        inference_count=figures.images,
        execution_count=figures.passes,
        inference_stats=inference_pb2.InferStatistics(
            success=_duration(figures.succeeded),
            fail=_duration(figures.failed),
            queue=_duration(figures.waiting),
            compute_input=_duration(by_request.reading),
            compute_infer=_duration(by_request.running),
            compute_output=_duration(by_request.replying),
            cache_hit=inference_pb2.StatisticDuration(),
            cache_miss=inference_pb2.StatisticDuration(),
        ),
        batch_stats=[_of_size(size, found) for size, found in sorted(figures.by_size.items())],
    )


def _of_size(size: int, figures: PassFigures) -> inference_pb2.InferBatchStatistics:
    return inference_pb2.InferBatchStatistics(
        batch_size=size,
        compute_input=_duration(figures.reading),
        compute_infer=_duration(figures.running),
        compute_output=_duration(figures.replying),
    )


def _duration(duration: Duration) -> inference_pb2.StatisticDuration:
    return inference_pb2.StatisticDuration(count=duration.count, ns=duration.ns)
