"""Services of `mlpserve.v1`: PredictionService and ModelManagementService, each a table of rpcs."""

from typing import Final

import grpc

from mlpserve.server.grpc_api.messages import SERVICE_NAME, PredictionMessages
from mlpserve.server.grpc_api.parsing import parsed
from mlpserve.server.grpc_api.servicer import Servicer
from mlpserve.server.inference.model_manager import ModelManager
from mlpserve.server.security.admission import CallLimit
from mlpserve.v1 import model_management_pb2

MANAGEMENT_SERVICE_NAME: Final = model_management_pb2.DESCRIPTOR.services_by_name[
    "ModelManagementService"
].full_name


def prediction_service(messages: PredictionMessages, servicer: Servicer) -> grpc.GenericRpcHandler:
    """Return PredictionService."""
    return grpc.method_handlers_generic_handler(
        SERVICE_NAME,
        {
            "Predict": servicer.predict("Predict", messages.parse_predict),
            "PredictStream": servicer.stream("PredictStream", messages.parse_stream_request),
            "Explain": servicer.predict("Explain", messages.parse_explain),
            "GetModel": servicer.unary("GetModel", messages.get_model),
            "ListModels": servicer.unary("ListModels", messages.list_models),
        },
    )


class ManagementService:
    """ModelManagementService. Safe to call from many threads.

    Args:
        manager: Does what is asked.
        messages: Describes the models that are served then.
        limit: How many calls may be open. Each waits, in a thread, until all processes have changed
            over.
    """

    def __init__(
        self, manager: ModelManager, messages: PredictionMessages, limit: CallLimit
    ) -> None:
        self._manager = manager
        self._messages = messages
        self._limit = limit

    def handlers(self, servicer: Servicer) -> grpc.GenericRpcHandler:
        """Return what a gRPC server calls."""
        rpcs = {
            "LoadModel": self._load_model,
            "UnloadModel": self._unload_model,
            "ReloadModels": self._reload_models,
        }
        return grpc.method_handlers_generic_handler(
            MANAGEMENT_SERVICE_NAME,
            {
                method: servicer.unary(method, answer, self._limit)
                for method, answer in rpcs.items()
            },
        )

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
