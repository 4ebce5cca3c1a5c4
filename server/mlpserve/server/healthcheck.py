"""Health check of a server: asks whether it would answer."""

from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVICE_NAME: Final = "mlpserve.v1.PredictionService"
_TIMEOUT_S: Final = 3.0


def health_problem(
    target: str,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    name: str = "localhost",
    timeout_s: float = _TIMEOUT_S,
) -> str | None:
    """Return None where the server at ``target`` would answer a prediction, else why not.

    Args:
        target: The server, as gRPC names it.
        certificate: The server's own certificate, where it speaks TLS. It is what is trusted, and
            with its key also what is shown to a server that wants to see one.
        key: The certificate's key.
        name: A name in the certificate.
        timeout_s: Seconds to wait for the answer.
    """
    try:
        with _channel(target, certificate, key, name) as channel:
            response = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=_SERVICE_NAME), timeout=timeout_s
            )
    except grpc.RpcError as error:
        return f"{target} does not answer: {error.code().name}: {error.details()}"
    except OSError as error:
        return f"{error.filename}: cannot be read: {error.strerror}"
    if response.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
        return f"{target} is not ready: {status}"
    return None


def _channel(target: str, certificate: Path | None, key: Path | None, name: str) -> grpc.Channel:
    # Never through a proxy: it is the server itself that is asked about.
    options: list[tuple[str, object]] = [("grpc.enable_http_proxy", 0)]
    if certificate is None or key is None:
        return grpc.insecure_channel(target, options)
    chain = certificate.read_bytes()
    credentials = grpc.ssl_channel_credentials(chain, key.read_bytes(), chain)
    options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(target, credentials, options)
