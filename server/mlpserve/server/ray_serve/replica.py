"""Replica: one process of Ray Serve that loads the models and answers requests."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from grpc_health.v1 import health_pb2
from ray import serve
from starlette.responses import Response  # it comes with Ray Serve
from threadpoolctl import threadpool_limits

from mlpserve.model.sync.urls import shown
from mlpserve.server.app import App
from mlpserve.server.grpc_api.health import HealthService
from mlpserve.server.grpc_api.interceptor import AdmissionInterceptor
from mlpserve.server.grpc_api.messages import SERVICE_NAME
from mlpserve.server.models.generations import LocalPool
from mlpserve.server.models.lifecycle import Lifecycle
from mlpserve.server.oip.messages import SERVICE_NAME as OIP_SERVICE_NAME
from mlpserve.server.ray_serve.arguments import Replicas
from mlpserve.server.ray_serve.calls import Call, Calls, Encoded
from mlpserve.server.ray_serve.proxy import RPCS, Rpc
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.system.threads import started_pool
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, merged

logger = logging.getLogger(__name__)

_NOT_FOUND: Final = 404
_NAME: Final = "mlpserve"
_RAYS_LOGGER: Final = "ray.serve"


class Replica:
    """Answers the rpcs of ``RPCS``, by a method of the name of each.

    Args:
        settings: Those of ``ServerConfig``, in plain values.

    Raises:
        StartError: The models folder is a file, or the URL or the token file cannot be used.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        config = ServerConfig(**settings)
        _log_as_ray_does(config.log_level)
        threadpool_limits(config.threads)
        self._pool = LocalPool(reproducible=config.reproducible, activated=self._show_health)
        self._lifecycle = Lifecycle(config, self._pool)
        self._app = App(config, self._pool.generations, manager=None, totals=self._metrics)
        self._health = HealthService(
            started_pool(1, "health"), lambda _, send: send, max_connections=1
        )
        self.calls = Calls(
            (*self._app.services(), self._health.handlers()),
            AdmissionInterceptor(
                self._app.admission,
                self._app.recorder,
                places_of_stream=config.max_stream_batches,
                knows_connections=True,
            ),
            self._app.recorder,
            threads=config.request_threads,
            max_message_bytes=config.max_message_bytes,
        )
        self._lifecycle.start()
        self._app.start()
        self._show_health()
        _log_what_is_served(config, self._lifecycle)

    def __del__(self) -> None:
        """End; Ray calls it when no request is open any more, or after its time for that."""
        if hasattr(self, "calls"):  # it was made
            self.calls.close()
            self._lifecycle.stop()
            self._app.stop()

    async def __call__(self, _: object) -> Response:
        """Answer a request that came over HTTP."""
        return Response("this application answers gRPC only, see docs/ray-serve.md\n", _NOT_FOUND)

    def _show_health(self) -> None:
        states = health_pb2.HealthCheckResponse
        is_ready = self._pool.generations.current.is_ready
        for service in ("", SERVICE_NAME, OIP_SERVICE_NAME):
            self._health.set(service, states.SERVING if is_ready else states.NOT_SERVING)

    def _metrics(self) -> MetricsSnapshot:
        return merged([self._app.metrics("replica"), self._lifecycle.metrics()])


def _log_as_ray_does(level: str) -> None:
    """Have our lines go where Ray writes those of replicas, from a level on."""
    ours = logging.getLogger("mlpserve")
    ours.setLevel(level.upper())
    for handler in logging.getLogger(_RAYS_LOGGER).handlers:
        if handler not in ours.handlers:
            ours.addHandler(handler)


def _log_what_is_served(config: ServerConfig, lifecycle: Lifecycle) -> None:
    plan = lifecycle.controller.plan
    if plan.is_ready:
        logger.info("ready: serving %s", plan.summary)
    else:
        logger.warning(
            "not ready: %s has no NAME/VERSION/weights.npz that can be used on this node",
            shown(config.models),
        )


def _unary(rpc: Rpc) -> Callable[..., Any]:
    async def answer(self: Replica, request: object, grpc_context: Any) -> Encoded:  # noqa: ANN401 - Ray's
        data, remaining_s = request if isinstance(request, tuple) else (request, None)
        return await self.calls.unary(rpc.path, data, Call(grpc_context, remaining_s))

    return answer


def _stream(rpc: Rpc) -> Callable[..., Any]:
    async def answer(
        self: Replica,
        requests: AsyncIterator[bytes],
        grpc_context: Any,  # noqa: ANN401 - Ray's
    ) -> AsyncIterator[Encoded]:
        responses = self.calls.stream(rpc.path, requests, Call(grpc_context, None))
        async with aclosing(responses):
            async for response in responses:
                yield response

    return answer


for _rpc in RPCS:
    _method = _stream(_rpc) if _rpc.is_stream else _unary(_rpc)
    _method.__name__ = _rpc.name
    setattr(Replica, _rpc.name, _method)


def deployment(replicas: Replicas, config: ServerConfig) -> serve.Application:
    """Return the application of which each replica serves as the settings say."""
    made = serve.deployment(
        name=_NAME,
        max_ongoing_requests=config.request_threads,
        max_queued_requests=replicas.max_queued_requests,
        autoscaling_config={
            "min_replicas": replicas.min_replicas,
            "max_replicas": replicas.max_replicas,
            "target_ongoing_requests": replicas.target_ongoing_requests,
            "upscale_delay_s": replicas.upscale_delay_s,
            "downscale_delay_s": replicas.downscale_delay_s,
            "look_back_period_s": replicas.look_back_period_s,
        },
        ray_actor_options={"num_cpus": replicas.num_cpus},
    )(Replica)
    application: serve.Application = made.bind(config.to_plain())
    return application
