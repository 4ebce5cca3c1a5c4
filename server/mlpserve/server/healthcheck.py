"""Asks a server whether it would answer."""

from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVICE_NAME: Final = "mlpserve.v1.PredictionService"
_TIMEOUT_S: Final = 3.0


def health_problem(target: str, *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Return None where the server at ``target`` would answer a prediction, else why not."""
    # Never through a proxy: it is the server itself that is asked about.
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=_SERVICE_NAME), timeout=timeout_s
            )
        except grpc.RpcError as error:
            return f"{target} does not answer: {error.code().name}: {error.details()}"
    if response.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
        return f"{target} is not ready: {name}"
    return None
