"""The adapter between the wire contract and the request path: messages in, messages out.

Requests arrive here as bytes and are parsed here, so that bytes which are no message get an answer
of ours. gRPC itself would call that a fault of the server, and log a traceback for each.
"""

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from mlpserve.model.weights import Model
from mlpserve.server.descriptions import describe_model
from mlpserve.server.errors import RequestError
from mlpserve.server.limits import CallLimit
from mlpserve.server.prediction import (
    FLOAT32,
    UINT8,
    Answer,
    ImageDType,
    answer,
    decode_images,
)
from mlpserve.server.registry import Registry
from mlpserve.server.statuses import statuses
from mlpserve.v1 import prediction_pb2

SERVICE_NAME: Final = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name

_DTYPES: Final[Mapping[int, ImageDType]] = {
    prediction_pb2.DATA_TYPE_UINT8: UINT8,
    prediction_pb2.DATA_TYPE_FLOAT32: FLOAT32,
}
_Message = TypeVar("_Message", bound=Message)


class PredictionService:
    """Answers the rpcs of PredictionService from a registry.

    Safe to call from many threads.

    Args:
        registry: The models.
        max_batch_images: The most images that one request may carry.
        max_streams: So many calls of PredictStream may be open at once.
    """

    def __init__(self, registry: Registry, *, max_batch_images: int, max_streams: int) -> None:
        self._registry = registry
        self._max_batch_images = max_batch_images
        self._streams = CallLimit(max_streams, "streams: the most")

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server calls: bytes in, messages out."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Predict": unary(self.predict, response_serializer=_to_bytes),
                "PredictStream": stream(self.predict_stream, response_serializer=_to_bytes),
                "GetModel": unary(self.get_model, response_serializer=_to_bytes),
                "ListModels": unary(self.list_models, response_serializer=_to_bytes),
            },
        )

    def predict(self, data: bytes, context: grpc.ServicerContext) -> prediction_pb2.PredictResponse:
        """Classify one batch."""
        with statuses("Predict", context):
            model, found = self._answer(_parsed(prediction_pb2.PredictRequest, data))
            return prediction_pb2.PredictResponse(
                model_name=model.metadata.name,
                model_version=model.metadata.version,
                probabilities=found.probabilities,
                labels=found.labels,
            )

    def predict_stream(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[prediction_pb2.PredictStreamResponse]:
        """Classify batch after batch."""
        with statuses("PredictStream", context), self._streams:
            for data in requests:
                model, found = self._answer(_parsed(prediction_pb2.PredictStreamRequest, data))
                yield prediction_pb2.PredictStreamResponse(
                    model_name=model.metadata.name,
                    model_version=model.metadata.version,
                    probabilities=found.probabilities,
                    labels=found.labels,
                )

    def get_model(
        self, data: bytes, context: grpc.ServicerContext
    ) -> prediction_pb2.GetModelResponse:
        """Describe one model."""
        with statuses("GetModel", context):
            request = _parsed(prediction_pb2.GetModelRequest, data)
            if request.model_version:
                versions: tuple[Model, ...] = (
                    self._registry.find(request.model_name, request.model_version),
                )
            else:
                versions = self._registry.versions(request.model_name)
            return prediction_pb2.GetModelResponse(model=self._describe(versions))

    def list_models(
        self, data: bytes, context: grpc.ServicerContext
    ) -> prediction_pb2.ListModelsResponse:
        """Describe all models."""
        with statuses("ListModels", context):
            _parsed(prediction_pb2.ListModelsRequest, data)
            models = self._registry.models.values()
            return prediction_pb2.ListModelsResponse(
                models=[self._describe(versions) for versions in models]
            )

    def _answer(
        self, request: prediction_pb2.PredictRequest | prediction_pb2.PredictStreamRequest
    ) -> tuple[Model, Answer]:
        model = self._registry.find(request.model_name, request.model_version)
        batch = request.images
        images = decode_images(
            batch.data,
            count=batch.count,
            dtype=_dtype(batch.data_type),
            spec=model.metadata.input,
            max_batch_images=self._max_batch_images,
        )
        return model, answer(model, images)

    def _describe(self, versions: tuple[Model, ...]) -> prediction_pb2.Model:
        return describe_model(versions, max_batch_images=self._max_batch_images)


def _parsed(kind: type[_Message], data: bytes) -> _Message:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise RequestError(
            f"request: expected a {kind.DESCRIPTOR.full_name}, got {len(data)} bytes that are none"
        ) from error


def _to_bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _dtype(data_type: int) -> ImageDType:
    if data_type not in _DTYPES:
        names = ", ".join(prediction_pb2.DataType.Name(known) for known in _DTYPES)
        raise RequestError(f"images.data_type: expected {names}, got {data_type}")
    return _DTYPES[data_type]
