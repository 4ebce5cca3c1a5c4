"""Messages of PredictionService: parsed into requests, encoded from answers; models described.

Requests are parsed here and not by gRPC, so that bytes which are no message get an answer of ours.
gRPC itself would call that a fault of the server, and log a traceback for each.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Training
from mlpserve.server.errors import RequestError
from mlpserve.server.grpc_api.explaining import with_explanation
from mlpserve.server.grpc_api.parsing import Parser, parsed
from mlpserve.server.grpc_api.responses import encode_prediction, with_scores, with_timings
from mlpserve.server.inference.decoding import FLOAT32, UINT8, ImageDType, decode_images
from mlpserve.server.inference.registry import Router, ServedModel, SplitKey
from mlpserve.server.inference.request import ParsedRequest
from mlpserve.server.inference.shadow import Comparison, Shadow
from mlpserve.server.telemetry.request_record import RequestRecord
from mlpserve.server.telemetry.statistics import ShadowCounts, ShadowPair
from mlpserve.v1 import prediction_pb2

SERVICE_NAME: Final = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name

_DTYPES: Final[Mapping[prediction_pb2.DataType, ImageDType]] = {
    prediction_pb2.DATA_TYPE_UINT8: UINT8,
    prediction_pb2.DATA_TYPE_FLOAT32: FLOAT32,
}
# The field of the pixels in a request: `images`, and in it `data`.
_PIXELS: Final = (
    prediction_pb2.PredictRequest.IMAGES_FIELD_NUMBER,
    prediction_pb2.ImageBatch.DATA_FIELD_NUMBER,
)
# What a request has beside its images, names and labels among it; generous.
_MESSAGE_OVERHEAD_BYTES: Final = 64 * 1024
# They have the same fields, but for what is explained.
_PredictRequest: TypeAlias = prediction_pb2.PredictRequest | prediction_pb2.PredictStreamRequest


class PredictionMessages:
    """Parses requests, and encodes responses, of PredictionService. Runs no network.

    Safe to use from many threads.

    Args:
        router: Finds who answers. Each request is answered from the models that are served when it
            is parsed.
        max_batch_images: The most images that one request may carry.
        max_message_bytes: The largest message that the transport takes; where so many images of a
            model may be larger, its description says that fewer are allowed.
        shadow: What compares answers; None where nothing does.
    """

    def __init__(
        self,
        router: Router,
        *,
        max_batch_images: int,
        max_message_bytes: int,
        shadow: Shadow | None = None,
    ) -> None:
        self._router = router
        self._shadow = shadow
        self._max_batch_images = max_batch_images
        self._max_image_bytes = max_message_bytes - _MESSAGE_OVERHEAD_BYTES
        self._predict = Parser(prediction_pb2.PredictRequest, _PIXELS)
        self._stream = Parser(prediction_pb2.PredictStreamRequest, _PIXELS)
        self._explain = Parser(prediction_pb2.ExplainRequest, _PIXELS)

    def parse_predict(
        self, data: bytes, record: RequestRecord, key: SplitKey = None
    ) -> ParsedRequest[bytes]:
        """Return the request that a PredictRequest is.

        Args:
            data: The message.
            record: When it came, and from whom.
            key: Who asks; see ``Router``.

        Raises:
            RequestError: ``data`` is no such message, or a field of it is wrong.
            NotServedError: It asks for a model that is not served.
        """
        return self._prediction(self._predict.parse(data), record, key)

    def parse_stream_request(
        self, data: bytes, record: RequestRecord, key: SplitKey = None
    ) -> ParsedRequest[bytes]:
        """Return the request that a PredictStreamRequest is; as ``parse_predict``."""
        return self._prediction(self._stream.parse(data), record, key)

    def parse_explain(
        self, data: bytes, record: RequestRecord, key: SplitKey = None
    ) -> ParsedRequest[bytes]:
        """Return the request that an ExplainRequest is; as ``parse_predict``."""
        message, pixels = self._explain.parse(data)
        request = self._request(message, pixels, record, key)
        return with_explanation(request, message, max_rows=self._max_images(request.model))

    def _prediction(
        self,
        parts: tuple[_PredictRequest, memoryview | None],
        record: RequestRecord,
        key: SplitKey,
    ) -> ParsedRequest[bytes]:
        message, pixels = parts
        request = self._request(message, pixels, record, key)
        return with_scores(request) if message.with_ood_scores else request

    def _request(
        self,
        message: _PredictRequest | prediction_pb2.ExplainRequest,
        pixels: memoryview | None,
        record: RequestRecord,
        key: SplitKey,
    ) -> ParsedRequest[bytes]:
        model = self._router.find(
            message.model_name, message.model_version, message.model_label, key
        )
        batch = message.images
        images = decode_images(
            batch.data if pixels is None else pixels,
            count=batch.count,
            dtype=_dtype(batch.data_type),
            spec=model.metadata.input,
            max_batch_images=self._max_batch_images,
        )
        encode = partial(encode_prediction, model)
        request = ParsedRequest(model, images, len(images), encode, record)
        return with_timings(request) if message.with_timings else request

    def get_model(self, data: bytes) -> bytes:
        """Return the response to a GetModelRequest; errors as for ``parse_predict``."""
        request = parsed(prediction_pb2.GetModelRequest, data)
        registry = self._router.registry
        name, model = registry.model(request.model_name)
        versions = model.versions
        if request.model_version or request.model_label:
            found = registry.find(request.model_name, request.model_version, request.model_label)
            versions = (found,)
        described = self._describe(name, model, versions, self._shadow_counts())
        return prediction_pb2.GetModelResponse(model=described).SerializeToString()

    def list_models(self, data: bytes) -> bytes:
        """Return the response to a ListModelsRequest; errors as for ``parse_predict``."""
        parsed(prediction_pb2.ListModelsRequest, data)
        return prediction_pb2.ListModelsResponse(models=self.describe_all()).SerializeToString()

    def describe_all(self) -> list[prediction_pb2.Model]:
        """Return the descriptions of all models, in the order of their names."""
        models = self._router.registry.models
        counts = self._shadow_counts()  # of all models at once: other processes are asked
        return [
            self._describe(name, model, model.versions, counts) for name, model in models.items()
        ]

    def describe(self, name: str) -> prediction_pb2.Model:
        """Return the description of a model.

        Raises:
            NotServedError: There is none.
        """
        name, model = self._router.registry.model(name)
        return self._describe(name, model, model.versions, self._shadow_counts())

    def _describe(
        self,
        name: str,
        model: ServedModel,
        versions: tuple[CompiledModel, ...],
        counts: Mapping[ShadowPair, ShadowCounts],
    ) -> prediction_pb2.Model:
        max_images = min(map(self._max_images, versions), default=self._max_batch_images)
        comparison = None if self._shadow is None else self._shadow.comparison(name, model, counts)
        return describe_model(
            name, model, versions, max_batch_images=max_images, comparison=comparison
        )

    def _shadow_counts(self) -> Mapping[ShadowPair, ShadowCounts]:
        return {} if self._shadow is None else self._shadow.counts()

    def _max_images(self, model: CompiledModel) -> int:
        return max(1, min(self._max_batch_images, self._max_image_bytes // model.image_bytes))


def _dtype(data_type: prediction_pb2.DataType) -> ImageDType:
    if data_type not in _DTYPES:
        names = ", ".join(prediction_pb2.DataType.Name(known) for known in _DTYPES)
        raise RequestError(f"images.data_type: expected {names}, got {data_type}")
    return _DTYPES[data_type]


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


def _describe_range(spec: InputSpec) -> prediction_pb2.ValueRange | None:
    if spec.value_range is None:
        return None
    return prediction_pb2.ValueRange(low=spec.value_range.low, high=spec.value_range.high)


def _describe_version(model: CompiledModel) -> prediction_pb2.ModelVersion:
    metadata = model.metadata
    return prediction_pb2.ModelVersion(
        version=metadata.version,
        layer_sizes=metadata.layer_sizes,
        activations=metadata.activations,
        input_shape=metadata.input.shape,
        input_data_types=[
            number for number, dtype in _DTYPES.items() if dtype in metadata.input.wire_dtypes
        ],
        value_range=_describe_range(metadata.input),
        class_labels=metadata.class_labels,
        ood_threshold=None if model.detector is None else model.detector.threshold,
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
        warnings=training.warnings,
    )
    described.create_time.FromDatetime(training.created_at)
    return described
