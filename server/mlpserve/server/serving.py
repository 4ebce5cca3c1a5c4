"""A running server: the port, health, reflection, start and stop."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from threadpoolctl import threadpool_limits

from mlpserve.server.batching import Batcher, RowQueue
from mlpserve.server.compiled import Workspace
from mlpserve.server.config import ServerConfig, address
from mlpserve.server.errors import StartError
from mlpserve.server.fast_lane.check import why_unusable
from mlpserve.server.fast_lane.lane import FastLane
from mlpserve.server.fast_lane.predict import HotPredict
from mlpserve.server.messages import SERVICE_NAME, Messages
from mlpserve.server.operations import HealthService, ReflectionService
from mlpserve.server.ports import cannot_listen, check_free
from mlpserve.server.prediction import FLOAT32
from mlpserve.server.registry import Registry, load_registry
from mlpserve.server.security.interceptor import TokenInterceptor
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.security.transport import server_credentials
from mlpserve.server.service import PredictionService

# Far above any batch that is allowed, so that one that is too large is refused by us, with the
# limit in the message, and not by the transport.
_SMALLEST_MESSAGE_LIMIT_BYTES: Final = 64 * 1024 * 1024
_LARGEST_MESSAGE_LIMIT_BYTES: Final = 2**31 - 1  # gRPC's own
_MESSAGE_OVERHEAD_BYTES: Final = 64 * 1024


class Server:
    """A gRPC server for the models of one folder.

    It answers as soon as ``start`` returns. The port is taken, and refused to others, before that.

    Args:
        config: How to serve.

    Raises:
        StartError: No model can be served, the port is taken, or a certificate or token file cannot
            be used.
        ModelsFolderError: The models folder cannot be read.
    """

    def __init__(self, config: ServerConfig) -> None:
        threadpool_limits(config.threads)
        self._config = config
        self.registry = load_registry(
            config.models,
            versions_per_model=config.versions_per_model,
            reproducible=config.reproducible,
        )
        self._messages = Messages(self.registry, max_batch_images=config.max_batch_images)
        self._health = HealthService()
        self._tokens = (
            Tokens(config.token_file, required=config.require_token) if config.token_file else None
        )
        credentials = server_credentials(config)
        self._server = self._build()
        self.port = _bind(self._server, config, credentials)
        self.adapter = "the fast lane"  # what answers Predict, in words
        self._fast_lane = self._build_fast_lane()

    def start(self) -> None:
        """Answer requests, and say so to whoever asks for the server's health."""
        (self._fast_lane or self._server).start()
        for service in ("", SERVICE_NAME):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Refuse new requests, answer those that were accepted, and end."""
        self._health.stop()
        self._server.stop(self._config.stop_grace_s).wait()

    @property
    def summary(self) -> str:
        """Return which versions of which models are served."""
        return ", ".join(
            f"{name} version {' and '.join(str(model.metadata.version) for model in versions)}"
            for name, versions in self.registry.models.items()
        )

    @property
    def address(self) -> str:
        """Return ``host:port`` with the port that is really used."""
        return address(self._config.host, self.port)

    def _build(self) -> grpc.Server:
        config = self._config
        server = grpc.server(
            ThreadPoolExecutor(config.request_threads, thread_name_prefix="request"),
            options=[
                ("grpc.max_receive_message_length", _message_limit_bytes(self.registry, config)),
                ("grpc.max_send_message_length", -1),
                # With it a second server on the port would start and take half the calls, unless
                # somebody watches the port.
                ("grpc.so_reuseport", int(config.shares_port)),
            ],
            interceptors=[TokenInterceptor(self._tokens)] if self._tokens else [],
        )
        service = PredictionService(
            self._messages,
            Batcher(self._row_queue(), Workspace(config.max_batch_rows)),
            max_streams=config.max_streams,
            max_stream_batches=config.max_stream_batches,
        )
        server.add_generic_rpc_handlers((service.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if config.reflection:
            reflected = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
                ReflectionService(reflected), server
            )
        return server

    def _build_fast_lane(self) -> FastLane | None:
        reason = why_unusable() if self._config.fast_lane else "it is switched off"
        if reason is not None:
            self.adapter = f"the public gRPC API, not the fast lane: {reason}"
            return None
        work = HotPredict(
            self._messages,
            self._row_queue(),
            Workspace(self._config.max_batch_rows),
            tokens=self._tokens,
        )
        return FastLane(self._server, f"/{SERVICE_NAME}/Predict", work)

    def _row_queue(self) -> RowQueue:
        return RowQueue(
            max_batch_rows=self._config.max_batch_rows,
            max_queue_rows=self._config.max_queue_rows,
        )


def _message_limit_bytes(registry: Registry, config: ServerConfig) -> int:
    largest_image = max(
        model.metadata.input.values_per_image * FLOAT32.itemsize
        for versions in registry.models.values()
        for model in versions
    )
    needed = config.max_batch_images * largest_image + _MESSAGE_OVERHEAD_BYTES
    if needed > _LARGEST_MESSAGE_LIMIT_BYTES:
        fitting = (_LARGEST_MESSAGE_LIMIT_BYTES - _MESSAGE_OVERHEAD_BYTES) // largest_image
        raise StartError(
            f"max_batch_images: expected at most {fitting}, because gRPC carries at most 2 GiB and "
            f"an image has up to {largest_image} bytes, got {config.max_batch_images}"
        )
    return max(needed, _SMALLEST_MESSAGE_LIMIT_BYTES)


def _bind(
    server: grpc.Server, config: ServerConfig, credentials: grpc.ServerCredentials | None
) -> int:
    if not config.shares_port:
        check_free(config.host, config.port)  # gRPC says only that it failed; this says why
    wanted = address(config.host, config.port)
    try:
        if credentials is not None:
            return server.add_secure_port(wanted, credentials)
        return server.add_insecure_port(wanted)
    except RuntimeError as error:
        raise cannot_listen(config.host, config.port, error) from error
