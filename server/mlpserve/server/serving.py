"""A running server: the port, health, reflection, start and stop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from threadpoolctl import threadpool_limits

from mlpserve.server.batching import Batcher, RowQueue
from mlpserve.server.compiled import Workspace
from mlpserve.server.config import MAX_MANAGEMENT_CALLS, NO_PORT, ServerConfig, address
from mlpserve.server.fast_lane.check import why_unusable
from mlpserve.server.fast_lane.infer import HotInfer
from mlpserve.server.fast_lane.lane import FastLane
from mlpserve.server.fast_lane.predict import HotPredict
from mlpserve.server.fast_lane.queued import QueuedCalls
from mlpserve.server.figures import statistics_snapshot
from mlpserve.server.lifecycle.crew import LocalCrew
from mlpserve.server.lifecycle.generations import Generations, OwnBoard
from mlpserve.server.lifecycle.looking_after import Lifecycle
from mlpserve.server.lifecycle.shadow import Shadow
from mlpserve.server.lifecycle.shares import parse_shares
from mlpserve.server.lifecycle.splitting import Splitter
from mlpserve.server.lifecycle.tallies import Tallies
from mlpserve.server.limits import CallLimit
from mlpserve.server.management import MANAGEMENT_SERVICE_NAME, ManagementService
from mlpserve.server.managing import Manager
from mlpserve.server.messages import SERVICE_NAME, Messages
from mlpserve.server.metrics.models import lifecycle_snapshot
from mlpserve.server.metrics.snapshots import MetricsSnapshot, merged
from mlpserve.server.observation import Observation
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.messages import SERVICE_NAME as OIP_SERVICE_NAME
from mlpserve.server.oip.repository import Repository
from mlpserve.server.oip.rest.opening import open_http
from mlpserve.server.oip.service import MODEL_INFER, InferenceService
from mlpserve.server.operations import HealthService, ReflectionService
from mlpserve.server.ports import cannot_listen, check_free
from mlpserve.server.security.interceptor import TokenInterceptor
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.security.transport import server_credentials
from mlpserve.server.service import PredictionService
from mlpserve.server.statistics import Statistics

if TYPE_CHECKING:  # it takes what is installed only where HTTP is wanted
    from mlpserve.server.oip.rest.listening import HttpServer


class Server:
    """A gRPC server for the models of one folder.

    It answers as soon as ``start`` returns, though it may have nothing to serve yet. The port is
    taken, and refused to others, before that.

    Args:
        config: How to serve.
        generations: What is served, where another process decides about it. Without them this one
            looks after its models itself.
        manager: Whom to ask for changes of what is served, where ``generations`` are given.
        tallies: Where to count what is compared; None for counts that are this process's own.
        totals: Returns what all processes of the server have counted; None where this is the only
            one.

    Raises:
        StartError: The port is taken, or a certificate or token file cannot be used.
    """

    def __init__(
        self,
        config: ServerConfig,
        generations: Generations | None = None,
        manager: Manager | None = None,
        tallies: Tallies | None = None,
        totals: Callable[[], MetricsSnapshot] | None = None,
    ) -> None:
        threadpool_limits(config.threads)
        self._config = config
        self._health = HealthService()
        self._showing_health = Lock()
        self.lifecycle: Lifecycle | None = None
        if generations is None:
            board = OwnBoard()
            generations = Generations(board, reproducible=config.reproducible)
            crew = LocalCrew(generations, board, activated=self.show_health)
            self.lifecycle = Lifecycle(config, crew)
            manager = self.lifecycle.controller
        self.generations = generations
        self._observation = Observation(config)
        self._shadow = self._build_shadow(tallies or Tallies.alone())
        splitter = _splitter(config)
        self.messages = Messages(
            generations,
            max_batch_images=config.max_batch_images,
            max_message_bytes=config.max_message_bytes,
            splitter=splitter,
            shadow=self._shadow,
        )
        self._tokens = (
            Tokens(config.token_file, required=config.require_token) if config.token_file else None
        )
        credentials = server_credentials(config)
        manager = manager if config.allow_management else None
        self._calls = self._observation.calls_of_many_threads()
        self._statistics = Statistics()
        self._management_calls = CallLimit(MAX_MANAGEMENT_CALLS, "management: the most calls")
        self._inference = Inference(
            generations,
            self._statistics,
            max_batch_images=config.max_batch_images,
            splitter=splitter,
        )
        self._repository = Repository(
            generations,
            totals or (lambda: self.metrics("server")),
            max_batch_images=config.max_batch_images,
            manager=manager,
            management_calls=self._management_calls,
        )
        self._batcher = Batcher(
            self._row_queue(),
            Workspace(config.max_batch_rows),
            self._calls.recorder,
            self._shadow,
        )
        self._server = self._build(manager)
        self.port = _bind(self._server, config, credentials)
        self.adapter = "the fast lane"  # what answers Predict, in words
        self._fast_lane = self._build_fast_lane()
        self.http = self._open_http() if config.http_port != NO_PORT else None

    def start(self) -> None:
        """Load what is there, answer requests, and tell whoever asks for the server's health."""
        if self.lifecycle is not None:
            self.lifecycle.start()
        if self._shadow is not None:
            self._shadow.start()
        self.show_health()
        (self._fast_lane or self._server).start()
        if self.http is not None:
            self.http.start()

    def stop(self) -> None:
        """Refuse new requests, answer those that were accepted, and end."""
        self._health.stop()
        has_ended = self._server.stop(self._config.stop_grace_s)
        if self.http is not None:
            self.http.stop()
        has_ended.wait()
        if self._shadow is not None:
            self._shadow.stop()
        if self.lifecycle is not None:
            self.lifecycle.stop()
        self._observation.close()

    def metrics(self, process: str) -> MetricsSnapshot:
        """Return what was counted and timed so far; see ``Measures.snapshot``."""
        own = self._observation.measures.snapshot(process)
        told = [own, statistics_snapshot(self._statistics)]
        if self.lifecycle is not None:
            told.append(lifecycle_snapshot(self.lifecycle.controller))
        return merged(told)

    def show_health(self) -> None:
        """Tell whoever asks for the server's health whether it has anything to serve now."""
        states = health_pb2.HealthCheckResponse
        with self._showing_health:  # or what was found out first might be shown last
            state = states.SERVING if self.generations.current.is_ready else states.NOT_SERVING
            for service in ("", SERVICE_NAME, OIP_SERVICE_NAME):
                self._health.set(service, state)

    @property
    def http_port(self) -> int | None:
        """Return the port for HTTP that is really used; None where there is none."""
        return None if self.http is None else self.http.port

    @property
    def address(self) -> str:
        """Return ``host:port`` with the port that is really used."""
        return address(self._config.host, self.port)

    def _build(self, manager: Manager | None) -> grpc.Server:
        config = self._config
        threads = config.request_threads + (MAX_MANAGEMENT_CALLS if manager else 0)
        server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="request"),
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # With it a second server on the port would start and take half the calls, unless
                # somebody watches the port.
                ("grpc.so_reuseport", int(config.shares_port)),
            ],
            interceptors=[TokenInterceptor(self._tokens, self._calls)] if self._tokens else [],
        )
        reflected: tuple[str, ...] = (
            SERVICE_NAME,
            OIP_SERVICE_NAME,
            health.SERVICE_NAME,
            reflection.SERVICE_NAME,
        )
        server.add_generic_rpc_handlers(self._handlers())
        if manager is not None:
            management = ManagementService(
                manager, self.messages, self._calls, self._management_calls
            )
            server.add_generic_rpc_handlers((management.handlers(),))
            reflected = (*reflected, MANAGEMENT_SERVICE_NAME)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if config.reflection:
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
                ReflectionService(reflected, self._calls), server
            )
        return server

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        config = self._config
        streams = CallLimit(config.max_streams, "streams: the most")
        most = config.max_stream_batches
        ours = PredictionService(
            self.messages, self._batcher, self._calls, streams=streams, max_stream_batches=most
        )
        open_inference = InferenceService(
            self._inference,
            self._repository,
            self._batcher,
            self._calls,
            streams=streams,
            max_stream_batches=most,
        )
        return ours.handlers(), open_inference.handlers()

    def _build_fast_lane(self) -> FastLane | None:
        reason = why_unusable() if self._config.fast_lane else "it is switched off"
        if reason is not None:
            self.adapter = f"the public gRPC API, not the fast lane: {reason}"
            return None
        queue, calls = self._row_queue(), self._observation.calls_of_one_thread()
        methods = {
            f"/{SERVICE_NAME}/Predict": HotPredict(self.messages, queue, calls).accept,
            f"/{OIP_SERVICE_NAME}/{MODEL_INFER}": HotInfer(self._inference, queue, calls).accept,
        }
        workspace = Workspace(self._config.max_batch_rows)
        work = QueuedCalls(queue, workspace, calls, tokens=self._tokens, shadow=self._shadow)
        return FastLane(self._server, methods, work)

    def _build_shadow(self, tallies: Tallies) -> Shadow | None:
        if not self._config.shadow:
            return None
        counters = self._observation.measures.own_counters()
        return Shadow(self.generations, self._config.shadow, tallies, counters)

    def _open_http(self) -> "HttpServer":
        return open_http(
            self._config,
            self._inference,
            self._repository,
            self._batcher,
            self._calls,
            max_body_bytes=self._config.max_message_bytes,
            tokens=self._tokens,
        )

    def _row_queue(self) -> RowQueue:
        queue = RowQueue(
            statistics=self._statistics,
            max_batch_rows=self._config.max_batch_rows,
            max_queue_rows=self._config.max_queue_rows,
        )
        self._observation.measures.watch_queue(queue.depth)
        return queue


def _splitter(config: ServerConfig) -> Splitter | None:
    shares = parse_shares(config.split)
    return Splitter(shares, header=config.split_header) if shares else None


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
