"""The adapter between the wire contract and the request path: messages in, messages out."""

from collections.abc import Iterator, Mapping
from threading import BoundedSemaphore
from typing import Final

import grpc

from mlpserve.model.weights import Model
from mlpserve.server.descriptions import describe_model
from mlpserve.server.errors import OverloadedError, RequestError
from mlpserve.server.prediction import FLOAT32, UINT8, Answer, ImageDType, answer, decode_images
from mlpserve.server.registry import Registry
from mlpserve.server.statuses import statuses
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

_DTYPES: Final[Mapping[int, ImageDType]] = {
    prediction_pb2.DATA_TYPE_UINT8: UINT8,
    prediction_pb2.DATA_TYPE_FLOAT32: FLOAT32,
}


class PredictionService(prediction_pb2_grpc.PredictionServiceServicer):
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
        self._max_streams = max_streams
        self._free_streams = BoundedSemaphore(max_streams)

    def Predict(
        self, request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        """Classify one batch."""
        with statuses("Predict", context):
            model, found = self._answer(request)
            return prediction_pb2.PredictResponse(
                model_name=model.metadata.name,
                model_version=model.metadata.version,
                probabilities=found.probabilities,
                labels=found.labels,
            )

    def PredictStream(
        self,
        request_iterator: Iterator[prediction_pb2.PredictStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[prediction_pb2.PredictStreamResponse]:
        """Classify batch after batch."""
        with statuses("PredictStream", context):
            if not self._free_streams.acquire(blocking=False):
                raise OverloadedError(f"streams: the most at once is {self._max_streams}")
            try:
                for request in request_iterator:
                    model, found = self._answer(request)
                    yield prediction_pb2.PredictStreamResponse(
                        model_name=model.metadata.name,
                        model_version=model.metadata.version,
                        probabilities=found.probabilities,
                        labels=found.labels,
                    )
            finally:
                self._free_streams.release()

    def GetModel(
        self, request: prediction_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.GetModelResponse:
        """Describe one model."""
        with statuses("GetModel", context):
            versions = self._registry.versions(request.model_name)
            if request.model_version:
                versions = (self._registry.find(request.model_name, request.model_version),)
            return prediction_pb2.GetModelResponse(model=self._describe(versions))

    def ListModels(
        self,
        request: prediction_pb2.ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: grpc.ServicerContext,
    ) -> prediction_pb2.ListModelsResponse:
        """Describe all models."""
        with statuses("ListModels", context):
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


def _dtype(data_type: int) -> ImageDType:
    if data_type not in _DTYPES:
        names = ", ".join(prediction_pb2.DataType.Name(known) for known in _DTYPES)
        raise RequestError(f"images.data_type: expected {names}, got {data_type}")
    return _DTYPES[data_type]
