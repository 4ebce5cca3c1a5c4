"""Descriptions of models as the protocol, and Triton's configuration, have them."""

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import Message

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.folder import VersionKey
from mlpserve.oip import inference_pb2
from mlpserve.server.inference.request import LOWEST_PRIORITY, NORMAL_PRIORITY
from mlpserve.server.oip.tensors import (
    ATTRIBUTIONS,
    DATATYPES,
    INPUT_NAME,
    LABELS,
    OOD_SCORES,
    PROBABILITIES,
)
from mlpserve.server.telemetry.statistics import BatchCounts, ModelStatistics

PLATFORM: Final = "mlpserve"
# The parameters that tell them.
_VALUE_RANGE: Final = "value_range"
_OOD_THRESHOLD: Final = "ood_threshold"
_Duration = inference_pb2.StatisticDuration
_Tensor = inference_pb2.ModelMetadataResponse.TensorMetadata


def input_datatype(model: CompiledModel) -> str:
    """Return the datatype that a model is best sent, of all that are accepted."""
    # Bytes are the smallest and fastest; but a range of values may have fractions.
    return "UINT8" if model.metadata.input.value_range is None else "FP32"


def metadata_message(
    model: CompiledModel, versions: Sequence[CompiledModel]
) -> inference_pb2.ModelMetadataResponse:
    """Return the description of a version of a model that is served in those versions."""
    classes = len(model.metadata.class_labels)
    values = model.metadata.input.values_per_image
    outputs = [
        _Tensor(name=PROBABILITIES, datatype=DATATYPES[PROBABILITIES], shape=[-1, classes]),
        _Tensor(name=LABELS, datatype=DATATYPES[LABELS], shape=[-1]),
        _Tensor(name=ATTRIBUTIONS, datatype=DATATYPES[ATTRIBUTIONS], shape=[-1, values]),
    ]
    if model.detector is not None:
        outputs.append(_Tensor(name=OOD_SCORES, datatype=DATATYPES[OOD_SCORES], shape=[-1]))
    return inference_pb2.ModelMetadataResponse(
        name=model.metadata.name,
        versions=[str(version.metadata.version) for version in versions],
        platform=PLATFORM,
        inputs=[_Tensor(name=INPUT_NAME, datatype=input_datatype(model), shape=[-1, values])],
        outputs=outputs,
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
    data_type = inference_pb2.DataType.Value(f"TYPE_{input_datatype(model)}")
    config.input.add(name=INPUT_NAME, data_type=data_type, dims=[values])
    if (value_range := model.metadata.input.value_range) is not None:
        config.parameters[_VALUE_RANGE].string_value = str(value_range)
    classes = len(model.metadata.class_labels)
    config.output.add(name=PROBABILITIES, data_type=inference_pb2.TYPE_FP32, dims=[classes])
    config.output.add(name=LABELS, data_type=inference_pb2.TYPE_INT32)
    config.output.add(name=ATTRIBUTIONS, data_type=inference_pb2.TYPE_FP32, dims=[values])
    if model.detector is not None:
        config.output.add(name=OOD_SCORES, data_type=inference_pb2.TYPE_FP32)
        config.parameters[_OOD_THRESHOLD].string_value = f"{model.detector.threshold:.9g}"
    return config


def statistics_message(
    key: VersionKey, statistics: ModelStatistics
) -> inference_pb2.ModelStatistics:
    """Return the statistics of a version of a model."""
    counts, failed, requests = statistics.all, statistics.failed, statistics.all.requests
    return inference_pb2.ModelStatistics(
        name=key.name,
        version=str(key.version),
        last_inference=statistics.last_batch_ms,
        inference_count=statistics.images,
        execution_count=counts.batches,
        inference_stats=inference_pb2.InferStatistics(
            success=_Duration(count=requests, ns=counts.latency_ns),
            fail=_Duration(count=failed.requests, ns=failed.ns),
            queue=_Duration(count=requests, ns=counts.queue_ns),
            compute_input=_Duration(count=requests, ns=counts.decode_ns),
            compute_infer=_Duration(count=requests, ns=counts.compute_ns_by_request),
            compute_output=_Duration(count=requests, ns=counts.reply_ns_by_request),
            cache_hit=_Duration(),
            cache_miss=_Duration(),
        ),
        batch_stats=[_of_size(*each) for each in sorted(statistics.by_size.items())],
    )


def _of_size(size: int, counts: BatchCounts) -> inference_pb2.InferBatchStatistics:
    return inference_pb2.InferBatchStatistics(
        batch_size=size,
        compute_input=_Duration(count=counts.batches, ns=counts.decode_ns),
        compute_infer=_Duration(count=counts.batches, ns=counts.compute_ns),
        compute_output=_Duration(count=counts.batches, ns=counts.reply_ns),
    )


def plain(message: Message) -> dict[str, Any]:
    """Return all fields of a message; of those with presence, those that are set."""
    return {
        field.name: _plain_field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _plain_field(field: Any, value: Any) -> Any:  # noqa: ANN401 - a descriptor, and any value
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: plain(each) for key, each in value.items()}
    if not field.is_repeated:
        return _plain_value(field, value)
    return [_plain_value(field, each) for each in value]


def _plain_value(field: Any, value: Any) -> Any:  # noqa: ANN401
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
