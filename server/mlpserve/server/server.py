"""Server: the ports of one process, health and reflection, from start to stop."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Event, Lock
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from threadpoolctl import threadpool_limits

from mlpserve.server.app import App
from mlpserve.server.errors import StartError
from mlpserve.server.grpc_api.arrival import ArrivalExecutor, InlineExecutor, Sender
from mlpserve.server.grpc_api.fast_lane.lane import FastLane, untested_release
from mlpserve.server.grpc_api.fast_lane.self_test import why_unusable
from mlpserve.server.grpc_api.health import HealthService, ReflectionService
from mlpserve.server.grpc_api.interceptor import AdmissionInterceptor, AdmittingExecutor
from mlpserve.server.grpc_api.late_calls import LateCalls
from mlpserve.server.grpc_api.messages import SERVICE_NAME
from mlpserve.server.grpc_api.services import MANAGEMENT_SERVICE_NAME
from mlpserve.server.grpc_api.transport import transport_options
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.inference.model_manager import ModelManager
from mlpserve.server.models.generations import Generations, LocalPool
from mlpserve.server.models.lifecycle import Lifecycle
from mlpserve.server.oip.messages import SERVICE_NAME as OIP_SERVICE_NAME
from mlpserve.server.security.tls import GrpcTls, grpc_tls
from mlpserve.server.settings.config import MAX_MANAGEMENT_CALLS, NO_PORT, ServerConfig
from mlpserve.server.system.ports import address, cannot_listen, check_free
from mlpserve.server.system.threads import end_process_with, started_pool
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, merged

if TYPE_CHECKING:  # it takes what is installed only where HTTP is wanted
    from mlpserve.server.oip.http.server import HttpServer

_NAME_OF_GRPCIOS: Final = "_serve"  # part of that of its thread, which hands out all calls
_AFTER_GRACE_S: Final = 2.0  # until calls that were cancelled have ended
# So often the lane's loop turns at least while it may miss heartbeats.
_TURNS_A_TIMEOUT: Final = 4
_HEALTH_THREADS: Final = 2  # where calls wait in threads
_REFLECTED: Final = (
    SERVICE_NAME,
    OIP_SERVICE_NAME,
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)


class Server:
    """A gRPC server for the models of one folder.

    It answers as soon as ``start`` returns, though it may have nothing to serve yet. The port is
    taken, and refused to others, before that.

    Args:
        config: How to serve.
        generations: What is served, where another process decides about it. Without them this one
            looks after its models itself.
        manager: Whom to ask for changes of what is served, where ``generations`` are given.
        totals: Returns what all processes of the server have counted; None where this is the only
            one.

    Raises:
        StartError: The port is taken, or a certificate or token file cannot be used.
    """

    def __init__(
        self,
        config: ServerConfig,
        generations: Generations | None = None,
        manager: ModelManager | None = None,
        totals: Callable[[], MetricsSnapshot] | None = None,
    ) -> None:
        threadpool_limits(config.threads)
        self._config = config
        self._late_calls = LateCalls()
        self._showing_health = Lock()
        self.lifecycle: Lifecycle | None = None
        if generations is None:
            pool = LocalPool(
                reproducible=config.reproducible,
                default_model=config.default_model,
                activated=self.show_health,
            )
            generations = pool.generations
            self.lifecycle = Lifecycle(config, pool)
            manager = self.lifecycle.controller
        self.generations = generations
        self.app = App(
            config,
            generations,
            manager=manager if config.allow_management else None,
            totals=totals or (lambda: self.metrics("server")),
        )
        self._executor, self._health = self._build_executor_and_health()
        self._tls = grpc_tls(config)
        self._server = self._build()
        self.port = _bind(self._server, config, self._tls)
        self.adapter = "the fast lane"  # what answers Predict, in words
        self._fast_lane = self._build_fast_lane()
        self._polling: list[threading.Thread] = []  # where it is not the fast lane's
        self._heartbeats = 0
        self.http = self._open_http() if config.http_port != NO_PORT else None

    def start(self) -> None:
        """Load what is there, answer requests, and tell whoever asks for the server's health."""
        if self.lifecycle is not None:
            self.lifecycle.start()
        self.app.start()
        self.show_health()
        self._start_grpc()
        if self.http is not None:
            self.http.start()

    def reload(self) -> None:
        """Read certificates, tokens and models of its own care now, if they have changed."""
        self.app.admission.reload()
        if self._tls is not None:
            _, files = self._tls
            files.reload()
        if self.http is not None:
            self.http.reload()
        if self.lifecycle is not None:
            self.lifecycle.reload()

    def stop(self, *, drains: bool = True) -> None:
        """Say that nothing is to be sent here, refuse it, answer what was accepted, and end.

        Args:
            drains: Whether to take more for as long as the settings say, before it is refused.
        """
        self._health.stop()
        if drains:
            Event().wait(self._config.drain_seconds)
        grace_s = self._config.stop_grace_s
        try:
            has_ended = self._server.stop(grace_s)
        except RuntimeError:  # no thread can be started that would wait for open requests
            has_ended = self._server.stop(None)
        if self.http is not None:
            self.http.stop()
        has_ended.wait(grace_s + _AFTER_GRACE_S)
        self._late_calls.close()
        if self.lifecycle is not None:
            self.lifecycle.stop()
        self.app.stop()

    def metrics(self, process: str) -> MetricsSnapshot:
        """Return what was counted and timed so far; see ``Telemetry.snapshot``."""
        own = self.app.metrics(process)
        if self.lifecycle is None:
            return own
        return merged([own, self.lifecycle.metrics()])

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

    def heartbeat(self) -> int:
        """Return a number that grows as long as the thread that serves goes on.

        On the public API that thread is grpcio's: nobody can tell there whether it does anything,
        but only whether it lives.
        """
        if self._fast_lane is not None:
            return self._fast_lane.turns
        self._heartbeats += all(thread.is_alive() for thread in self._polling)
        return self._heartbeats

    def _start_grpc(self) -> None:
        if self._fast_lane is not None:
            self._fast_lane.start()
            return
        self._late_calls.start()
        before = set(threading.enumerate())
        self._server.start()
        started = set(threading.enumerate()) - before
        self._polling = [thread for thread in started if _NAME_OF_GRPCIOS in thread.name]
        for thread in self._polling:
            end_process_with(thread)

    def _build_executor_and_health(self) -> tuple[ThreadPoolExecutor, HealthService]:
        """Return what runs the handlers of calls, and the service of health."""
        config, late = self._config, self._late_calls
        threads = config.request_threads + config.allow_management * MAX_MANAGEMENT_CALLS
        pool = started_pool(threads, "request")
        if untested_release() is None:
            arrival = ArrivalExecutor(pool, late, self.app.recorder)
            room = FairShare(config.max_connections)  # for one of each connection
            at_once = ArrivalExecutor(InlineExecutor(), late, room=room)
            health = HealthService(at_once, Sender.of, max_connections=config.max_connections)
            return AdmittingExecutor(arrival), health
        return pool, HealthService(
            started_pool(_HEALTH_THREADS, "health"),
            lambda _, send_response: send_response,
            max_connections=config.max_connections,
        )

    def _build(self) -> grpc.Server:
        config, app = self._config, self.app
        server = grpc.server(
            self._executor,
            options=transport_options(config),
            interceptors=[self._interceptor()],
        )
        server.add_generic_rpc_handlers((*app.services(), self._health.handlers()))
        if config.reflection:
            managed = (MANAGEMENT_SERVICE_NAME,) if config.allow_management else ()
            described = ReflectionService(
                (*_REFLECTED, *managed), app.recorder, max_calls=config.reflection_calls
            )
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(described, server)
        return server

    def _interceptor(self) -> grpc.ServerInterceptor:
        app = self.app
        return AdmissionInterceptor(
            app.admission,
            app.recorder,
            places_of_stream=self._config.max_stream_batches,
            knows_connections=isinstance(self._executor, AdmittingExecutor),
        )

    def _build_fast_lane(self) -> FastLane | None:
        reason = why_unusable() if self._config.fast_lane else "it is switched off"
        if reason is not None:
            self.adapter = f"the public gRPC API, not the fast lane: {reason}"
            return None
        idle_s = min(1.0, self._config.worker_timeout_s / _TURNS_A_TIMEOUT)
        return FastLane(self._server, *self.app.hot_handler(), self._late_calls, idle_s=idle_s)

    def _open_http(self) -> "HttpServer":
        if find_spec("starlette") is None or find_spec("uvicorn") is None:
            raise StartError(
                "http_port: needs Starlette and uvicorn: pip install 'mlpserve[server,http]'"
            )
        # Only now, because they are installed only where HTTP is wanted.
        from mlpserve.server.oip.http.server import open_http  # noqa: PLC0415

        app = self.app
        return open_http(
            self._config,
            app.inference,
            app.repository,
            batcher=app.batcher,
            recorder=app.recorder,
            admission=app.admission,
        )


def _bind(server: grpc.Server, config: ServerConfig, tls: GrpcTls | None) -> int:
    if not config.shares_port:
        check_free(config.host, config.port)  # gRPC says only that it failed; this says why
    wanted = address(config.host, config.port)
    try:
        if tls is not None:
            credentials, _ = tls
            return server.add_secure_port(wanted, credentials)
        return server.add_insecure_port(wanted)
    except RuntimeError as error:
        raise cannot_listen(config.host, config.port, error) from error
