"""App: all that a request meets between two ports of one process, built from the settings.

    messages, oip -- parse --> queue -- batcher --> answers -- encode --> messages, oip

Knows neither ports nor certificates; `server` opens the ports.
"""

from collections.abc import Callable

import grpc

from mlpserve.model.compiled import Workspace
from mlpserve.server.grpc_api.fast_lane.handler import HotHandler
from mlpserve.server.grpc_api.messages import SERVICE_NAME, PredictionMessages
from mlpserve.server.grpc_api.servicer import Servicer
from mlpserve.server.grpc_api.services import ManagementService, prediction_service
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.inference.model_manager import ModelManager
from mlpserve.server.inference.queue import RowQueue
from mlpserve.server.inference.registry import Router
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.models.generations import Generations
from mlpserve.server.oip.grpc import MODEL_INFER, inference_service
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.messages import SERVICE_NAME as OIP_SERVICE_NAME
from mlpserve.server.oip.repository import Repository
from mlpserve.server.security.admission import Admission, CallLimit
from mlpserve.server.settings.config import MAX_MANAGEMENT_CALLS, ServerConfig
from mlpserve.server.telemetry.process import Telemetry
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.snapshots import MetricsSnapshot


class App:
    """The request path of one process. Safe to use from many threads.

    Args:
        config: How to serve.
        generations: What is served.
        manager: Whom to ask for changes of that; None where that is not allowed.
        totals: Returns what all processes of the server have counted.

    Attributes:
        recorder: Records calls of many threads.
        admission: Lets requests in.
        messages: Parses and encodes our own protocol.
        inference: Parses requests of the Open Inference Protocol.
        repository: Answers its other requests.
        batcher: Runs the networks for many threads.

    Raises:
        StartError: The token file cannot be used.
    """

    def __init__(
        self,
        config: ServerConfig,
        generations: Generations,
        *,
        manager: ModelManager | None,
        totals: Callable[[], MetricsSnapshot],
    ) -> None:
        self._config = config
        self._manager = manager
        self._telemetry = Telemetry(config)
        self._router = Router(
            lambda: generations.current, config.split.of_labels, header=config.split_header
        )
        self._shadow: Shadow | None = None
        if config.shadow:
            counters = self._telemetry.counters()
            self._shadow = Shadow(
                generations, config.shadow, counters, totals, logs=config.logs_shadow
            )
        self._management_calls = CallLimit(MAX_MANAGEMENT_CALLS, "management: the most calls")
        self.recorder = self._telemetry.shared_recorder()
        self.admission = Admission(config)
        self.messages = PredictionMessages(
            self._router,
            max_batch_images=config.max_batch_images,
            max_message_bytes=config.max_message_bytes,
            shadow=self._shadow,
        )
        self.inference = Inference(
            self._router,
            self.recorder.counters,
            max_batch_images=config.max_batch_images,
            max_message_bytes=config.max_message_bytes,
        )
        self.repository = Repository(
            self._router,
            totals,
            max_batch_images=config.max_batch_images,
            manager=manager,
            management_calls=self._management_calls,
        )
        self.batcher = Batcher(
            self._new_queue(self.recorder), self._new_workspace(), self.recorder, self._shadow
        )

    def start(self) -> None:
        """Start what runs beside requests."""
        if self._shadow is not None:
            self._shadow.start()

    def stop(self) -> None:
        """Stop that; requests have ended."""
        if self._shadow is not None:
            self._shadow.stop()
        self._telemetry.close()

    def metrics(self, process: str) -> MetricsSnapshot:
        """Return what was counted and timed so far; see ``Telemetry.snapshot``."""
        return self._telemetry.snapshot(process)

    def services(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the services of the public gRPC API."""
        config = self._config
        servicer = Servicer(
            self.batcher,
            self._router,
            self.recorder,
            streams=CallLimit(config.streams, "streams: the most"),
            max_stream_batches=config.max_stream_batches,
        )
        services = (
            prediction_service(self.messages, servicer),
            inference_service(self.inference, self.repository, servicer),
        )
        if self._manager is None:
            return services
        management = ManagementService(self._manager, self.messages, self._management_calls)
        return *services, management.handlers(servicer)

    def hot_handler(self) -> tuple[list[str], HotHandler]:
        """Return the full names of the hot methods, and what answers them in the fast lane."""
        methods = [
            f"/{SERVICE_NAME}/Predict",
            f"/{SERVICE_NAME}/Explain",
            f"/{OIP_SERVICE_NAME}/{MODEL_INFER}",
        ]
        recorder = self._telemetry.recorder()
        handler = HotHandler(
            {
                "Predict": self.messages.parse_predict,
                "Explain": self.messages.parse_explain,
                MODEL_INFER: self.inference.parse,
            },
            self._router,
            queue=self._new_queue(recorder),
            workspace=self._new_workspace(),
            recorder=recorder,
            admission=self.admission,
            shadow=self._shadow,
        )
        return methods, handler

    def _new_queue(self, recorder: Recorder) -> RowQueue:
        queue = RowQueue(
            max_batch_rows=self._config.max_batch_rows,
            max_queue_rows=self._config.max_queue_rows,
            counters=recorder.counters,
        )
        self._telemetry.watch_queue(queue.depth)
        return queue

    def _new_workspace(self) -> Workspace:
        return Workspace(self._config.max_batch_rows)
