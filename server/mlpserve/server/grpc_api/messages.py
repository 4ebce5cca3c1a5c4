"""The wire contract: bytes of messages to what is asked, and answers to bytes of messages.

Requests are parsed here and not by gRPC, so that bytes which are no message get an answer of ours.
gRPC itself would call that a fault of the server, and log a traceback for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from mlpserve.server.errors import RequestError
from mlpserve.server.grpc_api.descriptions import describe_model
from mlpserve.server.inference.compiled import CompiledModel, Images
from mlpserve.server.inference.decoding import FLOAT32, UINT8, Answer, ImageDType, decode_images
from mlpserve.server.inference.registry import ServedModel
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.inference.traffic_split import SplitKey, Splitter
from mlpserve.server.models.generations import Generations
from mlpserve.v1 import prediction_pb2

SERVICE_NAME: Final = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name

_DTYPES: Final[Mapping[int, ImageDType]] = {
    prediction_pb2.DATA_TYPE_UINT8: UINT8,
    prediction_pb2.DATA_TYPE_FLOAT32: FLOAT32,
}
# What a request has beside its images, names and labels among it; generous.
_MESSAGE_OVERHEAD_BYTES: Final = 64 * 1024
_Message = TypeVar("_Message", bound=Message)
_PredictRequest: TypeAlias = prediction_pb2.PredictRequest | prediction_pb2.PredictStreamRequest
_PredictResponse: TypeAlias = prediction_pb2.PredictResponse | prediction_pb2.PredictStreamResponse


@dataclass(frozen=True)
class Exchange:
    """The messages of an rpc that classifies images."""

    request: type[_PredictRequest]
    response: type[_PredictResponse]


PREDICT: Final = Exchange(prediction_pb2.PredictRequest, prediction_pb2.PredictResponse)
PREDICT_STREAM: Final = Exchange(
    prediction_pb2.PredictStreamRequest, prediction_pb2.PredictStreamResponse
)


class Messages:
    """Reads requests, and writes responses, of PredictionService. Runs no network.

    Safe to use from many threads.

    Args:
        generations: The models. Each request is answered from those that are served when it is
            read.
        max_batch_images: The most images that one request may carry.
        max_message_bytes: The largest message that the transport takes; where so many images of a
            model may be larger, its description says that fewer are allowed.
        splitter: What divides requests between labels; None where nothing does.
        shadow: What compares answers; None where nothing does.
    """

    def __init__(
        self,
        generations: Generations,
        *,
        max_batch_images: int,
        max_message_bytes: int,
        splitter: Splitter | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._generations = generations
        self.splitter: Final = splitter
        self._shadow = shadow
        self._max_batch_images = max_batch_images
        self._max_image_bytes = max_message_bytes - _MESSAGE_OVERHEAD_BYTES

    def images(
        self, exchange: Exchange, data: bytes, key: SplitKey = None
    ) -> tuple[CompiledModel, Images]:
        """Return the model that a request asks, and the images that it carries.

        Args:
            exchange: The messages of the rpc.
            data: The request.
            key: Who asks; see ``Splitter``.

        Raises:
            RequestError: ``data`` is no such request, or a field of it is wrong.
            NotServedError: It asks for a model that is not served.
        """
        request = parsed(exchange.request, data)
        model = self._model(request, key)
        batch = request.images
        images = decode_images(
            batch.data,
            count=batch.count,
            dtype=_dtype(batch.data_type),
            spec=model.metadata.input,
            max_batch_images=self._max_batch_images,
        )
        return model, images

    def _model(self, request: _PredictRequest, key: SplitKey) -> CompiledModel:
        registry = self._generations.current
        if self.splitter is None or request.model_version or request.model_label:
            return registry.find(request.model_name, request.model_version, request.model_label)
        return self.splitter.choose(registry, request.model_name, key)

    def answer(self, exchange: Exchange, model: CompiledModel, answer: Answer) -> bytes:
        """Return the response that carries a model's answer."""
        return exchange.response(
            model_name=model.metadata.name,
            model_version=model.metadata.version,
            probabilities=answer.probabilities,
            labels=answer.labels,
        ).SerializeToString()

    def get_model(self, data: bytes) -> bytes:
        """Return the response to a GetModelRequest; errors as for ``images``."""
        request = parsed(prediction_pb2.GetModelRequest, data)
        registry = self._generations.current
        name, model = registry.model(request.model_name)
        versions = model.versions
        if request.model_version or request.model_label:
            found = registry.find(request.model_name, request.model_version, request.model_label)
            versions = (found,)
        described = self._describe(name, model, versions)
        return prediction_pb2.GetModelResponse(model=described).SerializeToString()

    def list_models(self, data: bytes) -> bytes:
        """Return the response to a ListModelsRequest; errors as for ``images``."""
        parsed(prediction_pb2.ListModelsRequest, data)
        return prediction_pb2.ListModelsResponse(models=self.describe_all()).SerializeToString()

    def describe_all(self) -> list[prediction_pb2.Model]:
        """Return the descriptions of all models, in the order of their names."""
        models = self._generations.current.models
        return [self._describe(name, model, model.versions) for name, model in models.items()]

    def describe(self, name: str) -> prediction_pb2.Model:
        """Return the description of a model.

        Raises:
            NotServedError: There is none.
        """
        name, model = self._generations.current.model(name)
        return self._describe(name, model, model.versions)

    def _describe(
        self, name: str, model: ServedModel, versions: tuple[CompiledModel, ...]
    ) -> prediction_pb2.Model:
        most = min(map(self._most_images, versions), default=self._max_batch_images)
        comparison = None if self._shadow is None else self._shadow.comparison(name, model)
        return describe_model(name, model, versions, max_batch_images=most, comparison=comparison)

    def _most_images(self, model: CompiledModel) -> int:
        return max(1, min(self._max_batch_images, self._max_image_bytes // model.image_bytes))


def parsed(kind: type[_Message], data: bytes) -> _Message:
    """Return the message that the bytes are.

    Raises:
        RequestError: They are none of this kind.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise RequestError(
            f"request: expected a {kind.DESCRIPTOR.full_name}, got {len(data)} bytes that are none"
        ) from error


def _dtype(data_type: int) -> ImageDType:
    if data_type not in _DTYPES:
        names = ", ".join(prediction_pb2.DataType.Name(known) for known in _DTYPES)
        raise RequestError(f"images.data_type: expected {names}, got {data_type}")
    return _DTYPES[data_type]
