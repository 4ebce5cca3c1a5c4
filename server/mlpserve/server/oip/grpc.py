"""GRPCInferenceService of the Open Inference Protocol: a table of rpcs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from mlpserve.oip import inference_pb2 as pb
from mlpserve.server.grpc_api.parsing import parsed
from mlpserve.server.grpc_api.servicer import EncodeRefusal, Servicer
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.messages import SERVICE_NAME, encode_stream_error
from mlpserve.server.oip.repository import Repository
from mlpserve.server.statuses import Refusal
from mlpserve.server.telemetry.request_record import Metadata

MODEL_INFER: Final = "ModelInfer"
_STREAM: Final = "ModelStreamInfer"
_REAL_STATUSES: Final = ("triton_grpc_error", "true")  # metadata of a call


def inference_service(
    inference: Inference, repository: Repository, servicer: Servicer
) -> grpc.GenericRpcHandler:
    """Return GRPCInferenceService."""
    return grpc.method_handlers_generic_handler(
        SERVICE_NAME,
        {
            MODEL_INFER: servicer.predict(MODEL_INFER, inference.parse),
            _STREAM: servicer.stream(
                _STREAM, inference.parse_streamed, partial(_refusal_encoder, inference.max_values)
            ),
            **{
                name: servicer.unary(name, partial(_answer, repository, request_type, answer))
                for name, (request_type, answer) in _RPCS.items()
            },
        },
    )


def _refusal_encoder(max_values: int, metadata: Metadata) -> EncodeRefusal | None:
    """Return what writes an error as a response, as Triton does; None where it ends the call."""
    if _REAL_STATUSES in {(key, value) for key, value in metadata}:
        return None

    def refused(data: bytes, refusal: Refusal) -> bytes:
        return encode_stream_error(data, refusal.details, max_values)

    return refused


def _answer(
    repository: Repository,
    request_type: type[Message],
    answer: Callable[[Repository, Any], Message],
    data: bytes,
) -> bytes:
    return answer(repository, parsed(request_type, data)).SerializeToString()


def _live(_: Repository, __: pb.ServerLiveRequest) -> Message:
    return pb.ServerLiveResponse(live=True)


def _ready(repository: Repository, _: pb.ServerReadyRequest) -> Message:
    return pb.ServerReadyResponse(ready=repository.is_ready)


def _model_ready(repository: Repository, request: pb.ModelReadyRequest) -> Message:
    return pb.ModelReadyResponse(ready=repository.is_model_ready(request.name, request.version))


def _server_metadata(repository: Repository, _: pb.ServerMetadataRequest) -> Message:
    return repository.server_metadata()


def _model_metadata(repository: Repository, request: pb.ModelMetadataRequest) -> Message:
    return repository.model_metadata(request.name, request.version)


def _model_config(repository: Repository, request: pb.ModelConfigRequest) -> Message:
    return pb.ModelConfigResponse(config=repository.model_config(request.name, request.version))


def _model_statistics(repository: Repository, request: pb.ModelStatisticsRequest) -> Message:
    return repository.model_statistics(request.name, request.version)


def _index(repository: Repository, request: pb.RepositoryIndexRequest) -> Message:
    return repository.index(request.repository_name, ready_only=request.ready)


def _load(repository: Repository, request: pb.RepositoryModelLoadRequest) -> Message:
    repository.load(request.repository_name, request.model_name, request.parameters)
    return pb.RepositoryModelLoadResponse()


def _unload(repository: Repository, request: pb.RepositoryModelUnloadRequest) -> Message:
    repository.unload(request.repository_name, request.model_name, request.parameters)
    return pb.RepositoryModelUnloadResponse()


# The rpcs that run no network: their requests, and what answers these.
_RPCS: Final[Mapping[str, tuple[type[Message], Callable[[Repository, Any], Message]]]] = {
    "ServerLive": (pb.ServerLiveRequest, _live),
    "ServerReady": (pb.ServerReadyRequest, _ready),
    "ModelReady": (pb.ModelReadyRequest, _model_ready),
    "ServerMetadata": (pb.ServerMetadataRequest, _server_metadata),
    "ModelMetadata": (pb.ModelMetadataRequest, _model_metadata),
    "ModelConfig": (pb.ModelConfigRequest, _model_config),
    "ModelStatistics": (pb.ModelStatisticsRequest, _model_statistics),
    "RepositoryIndex": (pb.RepositoryIndexRequest, _index),
    "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, _load),
    "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, _unload),
}
