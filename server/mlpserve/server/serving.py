"""A running server: the port, health, reflection, start and stop."""

import logging
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from threadpoolctl import threadpool_limits

from mlpserve.model.weights import Model
from mlpserve.server.config import ServerConfig
from mlpserve.server.errors import StartError
from mlpserve.server.prediction import FLOAT32, UINT8, answer, decode_images
from mlpserve.server.registry import Registry, load_registry
from mlpserve.server.service import PredictionService
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

logger = logging.getLogger(__name__)

SERVICE_NAME: Final = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
# Far above any batch that is allowed, so that one that is too large is refused by us, with the
# limit in the message, and not by the transport.
_SMALLEST_MESSAGE_LIMIT_BYTES: Final = 64 * 1024 * 1024
_MESSAGE_OVERHEAD_BYTES: Final = 64 * 1024
_SELF_TEST_TOLERANCE: Final = 1e-5


class Server:
    """A gRPC server for the models of one folder.

    It answers as soon as ``start`` returns; before that, nothing is listening.

    Args:
        config: How to serve.

    Raises:
        StartError: No model can be served, one fails its self-test, or the port is taken.
        ModelsFolderError: The models folder cannot be read.
    """

    def __init__(self, config: ServerConfig) -> None:
        # Requests are answered side by side by Python's threads. BLAS threads on top of those would
        # only wait for each other.
        threadpool_limits(1)
        self._config = config
        self.registry = load_registry(config.models, versions_per_model=config.versions_per_model)
        _self_test(self.registry)
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._server = self._build()
        self.port = _bind(self._server, config)

    def start(self) -> None:
        """Answer requests, and say so to whoever asks for the server's health."""
        self._server.start()
        for service in ("", SERVICE_NAME):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        logger.info("ready: serving %s on %s", _summary(self.registry), self.address)

    def stop(self) -> None:
        """Refuse new requests, answer those that were accepted, and end."""
        logger.info("stopping: up to %g s for open requests", self._config.stop_grace_s)
        self._health.enter_graceful_shutdown()
        self._server.stop(self._config.stop_grace_s).wait()
        logger.info("stopped")

    @property
    def address(self) -> str:
        """Return ``host:port`` with the port that is really used."""
        return _address(self._config.host, self.port)

    def _build(self) -> grpc.Server:
        config = self._config
        server = grpc.server(
            ThreadPoolExecutor(config.worker_threads, thread_name_prefix="request"),
            options=[
                ("grpc.max_receive_message_length", _message_limit_bytes(self.registry, config)),
                ("grpc.max_send_message_length", -1),
                # Without this a second server on the port would start and take half the calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        service = PredictionService(
            self.registry,
            max_batch_images=config.max_batch_images,
            max_streams=config.max_streams,
        )
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        return server


def _all_models(registry: Registry) -> Iterable[Model]:
    return (model for versions in registry.models.values() for model in versions)


def _self_test(registry: Registry) -> None:
    """Have every model answer one image, on the path that requests take.

    Raises:
        StartError: An answer is no distribution.
    """
    for model in _all_models(registry):
        spec = model.metadata.input
        for dtype in (UINT8, FLOAT32):
            data = bytes(spec.values_per_image * dtype.itemsize)
            images = decode_images(data, count=1, dtype=dtype, spec=spec, max_batch_images=1)
            probabilities = np.frombuffer(answer(model, images).probabilities, FLOAT32)
            # Written so that a NaN, which compares false, is refused as well.
            if not abs(probabilities.sum() - 1) < _SELF_TEST_TOLERANCE:
                raise StartError(
                    f"self-test: version {model.metadata.version} of {model.metadata.name!r} "
                    f"answers probabilities that sum to {probabilities.sum()}, not 1"
                )


def _message_limit_bytes(registry: Registry, config: ServerConfig) -> int:
    largest_image = max(
        model.metadata.input.values_per_image * FLOAT32.itemsize for model in _all_models(registry)
    )
    needed = config.max_batch_images * largest_image + _MESSAGE_OVERHEAD_BYTES
    return max(needed, _SMALLEST_MESSAGE_LIMIT_BYTES)


def _bind(server: grpc.Server, config: ServerConfig) -> int:
    address = _address(config.host, config.port)
    # gRPC says only that it failed; a plain socket says why.
    try:
        for family, kind, protocol, _, target in socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(target)
        return server.add_insecure_port(address)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(
            f"cannot listen on {address}: {reason}; choose others with --host and --port"
        ) from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _summary(registry: Registry) -> str:
    return ", ".join(
        f"{name} version {' and '.join(str(model.metadata.version) for model in versions)}"
        for name, versions in registry.models.items()
    )
