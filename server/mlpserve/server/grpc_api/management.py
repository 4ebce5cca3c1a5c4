"""ModelManagementService: its messages, and the adapter on the public gRPC API."""

from collections.abc import Callable
from typing import Final

import grpc

from mlpserve.server.grpc_api.messages import Messages, parsed
from mlpserve.server.inference.model_manager import Manager
from mlpserve.server.security.limits import CallLimit
from mlpserve.server.statuses import Calls
from mlpserve.v1 import model_management_pb2

MANAGEMENT_SERVICE_NAME: Final = model_management_pb2.DESCRIPTOR.services_by_name[
    "ModelManagementService"
].full_name


class ManagementService:
    """Answers the rpcs of ModelManagementService. Safe to call from many threads.

    Args:
        manager: Does what is asked.
        messages: Describes the models that are served then.
        calls: What is done about calls besides answering them.
        limit: How many may be open. Each waits, in a thread, until all processes have changed over.
    """

    def __init__(
        self, manager: Manager, messages: Messages, calls: Calls, limit: CallLimit
    ) -> None:
        self._manager = manager
        self._messages = messages
        self._calls = calls
        self._limit = limit

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server calls."""
        answers = {
            "LoadModel": self._load_model,
            "UnloadModel": self._unload_model,
            "ReloadModels": self._reload_models,
        }
        return grpc.method_handlers_generic_handler(
            MANAGEMENT_SERVICE_NAME,
            {
                method: grpc.unary_unary_rpc_method_handler(self._guarded(method, answer))
                for method, answer in answers.items()
            },
        )

    def _guarded(
        self, method: str, answer: Callable[[bytes], bytes]
    ) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def respond(data: bytes, context: grpc.ServicerContext) -> bytes:
            with self._calls.handling(method, context) as record, self._limit:
                response = answer(data)
                self._calls.recorder.ended(record, "OK")
            return response

        return respond

    def _load_model(self, data: bytes) -> bytes:
        request = parsed(model_management_pb2.LoadModelRequest, data)
        self._manager.load(request.model_name, request.model_version)
        model = self._messages.describe(request.model_name)
        return model_management_pb2.LoadModelResponse(model=model).SerializeToString()

    def _unload_model(self, data: bytes) -> bytes:
        request = parsed(model_management_pb2.UnloadModelRequest, data)
        self._manager.unload(request.model_name, request.model_version)
        return model_management_pb2.UnloadModelResponse().SerializeToString()

    def _reload_models(self, data: bytes) -> bytes:
        parsed(model_management_pb2.ReloadModelsRequest, data)
        self._manager.reload()
        models = self._messages.describe_all()
        return model_management_pb2.ReloadModelsResponse(models=models).SerializeToString()
