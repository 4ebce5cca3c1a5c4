"""The rpcs of the protocol that run no network."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from mlpserve.oip import inference_pb2 as pb
from mlpserve.server.grpc_api.messages import parsed
from mlpserve.server.oip.repository import Repository
from mlpserve.server.statuses import Calls

_Request = TypeVar("_Request", bound=Message)
_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


def question_handlers(repository: Repository, calls: Calls) -> Mapping[str, _Handler]:
    """Return what answers each rpc, by its name."""
    return {
        name: _handler(name, request_type, partial(answer, repository), calls)
        for name, (request_type, answer) in _QUESTIONS.items()
    }


def _handler(
    name: str, request_type: type[_Request], answer: Callable[[_Request], Message], calls: Calls
) -> _Handler:
    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        with calls.handling(name, context) as record:
            response = answer(parsed(request_type, data)).SerializeToString()
            calls.recorder.ended(record, "OK")
        return response

    return grpc.unary_unary_rpc_method_handler(handle)


def _live(_: Repository, __: pb.ServerLiveRequest) -> Message:
    return pb.ServerLiveResponse(live=True)


def _ready(repository: Repository, _: pb.ServerReadyRequest) -> Message:
    return pb.ServerReadyResponse(ready=repository.is_ready)


def _model_ready(repository: Repository, asked: pb.ModelReadyRequest) -> Message:
    return pb.ModelReadyResponse(ready=repository.is_model_ready(asked.name, asked.version))


def _server_metadata(repository: Repository, _: pb.ServerMetadataRequest) -> Message:
    return repository.server_metadata()


def _model_metadata(repository: Repository, asked: pb.ModelMetadataRequest) -> Message:
    return repository.model_metadata(asked.name, asked.version)


def _model_config(repository: Repository, asked: pb.ModelConfigRequest) -> Message:
    return pb.ModelConfigResponse(config=repository.model_config(asked.name, asked.version))


def _model_statistics(repository: Repository, asked: pb.ModelStatisticsRequest) -> Message:
    return repository.model_statistics(asked.name, asked.version)


def _index(repository: Repository, asked: pb.RepositoryIndexRequest) -> Message:
    return repository.index(asked.repository_name, ready_only=asked.ready)


def _load(repository: Repository, asked: pb.RepositoryModelLoadRequest) -> Message:
    repository.load(asked.repository_name, asked.model_name, asked.parameters)
    return pb.RepositoryModelLoadResponse()


def _unload(repository: Repository, asked: pb.RepositoryModelUnloadRequest) -> Message:
    repository.unload(asked.repository_name, asked.model_name, asked.parameters)
    return pb.RepositoryModelUnloadResponse()


_QUESTIONS: Final[Mapping[str, tuple[type[Message], Callable[[Repository, Any], Message]]]] = {
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
