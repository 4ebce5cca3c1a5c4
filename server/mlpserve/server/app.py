"""What answers the requests of one process, whichever door they come through.

    contracts (messages, oip) -- read --> queue of rows -- passes --> answers -- written --> doors

Made once, from the settings. Knows neither ports nor certificates; `serving` opens the doors.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import grpc

from mlpserve.server.grpc_api.fast_lane.infer import HotInfer
from mlpserve.server.grpc_api.fast_lane.lane import Accept
from mlpserve.server.grpc_api.fast_lane.predict import HotPredict
from mlpserve.server.grpc_api.fast_lane.queued import QueuedCalls
from mlpserve.server.grpc_api.management import ManagementService
from mlpserve.server.grpc_api.messages import SERVICE_NAME, Messages
from mlpserve.server.grpc_api.predict import PredictionService
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.inference.compiled import Workspace
from mlpserve.server.inference.model_manager import Manager
from mlpserve.server.inference.queue import RowQueue
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.inference.traffic_split import Splitter
from mlpserve.server.models.generations import Generations
from mlpserve.server.oip.figures import statistics_snapshot
from mlpserve.server.oip.grpc import MODEL_INFER, InferenceService
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.messages import SERVICE_NAME as OIP_SERVICE_NAME
from mlpserve.server.oip.repository import Repository
from mlpserve.server.security.admission import Admission
from mlpserve.server.security.limits import CallLimit, OpenRequests
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.settings.config import MAX_MANAGEMENT_CALLS, ServerConfig
from mlpserve.server.settings.shares import parse_shares
from mlpserve.server.statuses import Calls
from mlpserve.server.telemetry.process import Telemetry
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, merged
from mlpserve.server.telemetry.statistics import Statistics
from mlpserve.server.telemetry.tallies import Tallies


class Surroundings(NamedTuple):
    """What a process has from outside.

    Attributes:
        generations: What is served.
        manager: Whom to ask for changes of that; None where that is not allowed.
        tallies: Where to count what shadows compare.
        totals: Returns what all processes of the server have counted.
    """

    generations: Generations
    manager: Manager | None
    tallies: Tallies
    totals: Callable[[], MetricsSnapshot]


class Answering:
    """All that a request meets between two doors. Safe to use from many threads.

    Args:
        config: How to serve.
        surroundings: What is outside.

    Attributes:
        calls: What is done about calls of many threads besides answering them.
        admission: Lets requests in.
        messages: The contract of ours.
        inference: Reads requests of the open protocol.
        repository: Answers its other questions.
        batcher: Runs the networks for many threads.

    Raises:
        StartError: The token file cannot be used.
    """

    def __init__(self, config: ServerConfig, surroundings: Surroundings) -> None:
        self._config = config
        self._outside = surroundings
        self._telemetry = Telemetry(config)
        self._statistics = Statistics()
        self._splitter = _splitter(config)
        self._shadow = self._new_shadow()
        self._management_calls = CallLimit(MAX_MANAGEMENT_CALLS, "management: the most calls")
        self.calls = Calls(self._telemetry.shared_recorder(), self._telemetry.request_log)
        self.admission = Admission(_tokens(config), OpenRequests(config.max_concurrent_requests))
        self.messages = self._new_messages()
        self.inference = self._new_inference()
        self.repository = self._new_repository()
        self.batcher = Batcher(
            self._new_queue(), self._new_workspace(), self.calls.recorder, self._shadow
        )

    def start(self) -> None:
        """Begin with what is done beside requests."""
        if self._shadow is not None:
            self._shadow.start()

    def stop(self) -> None:
        """End that; requests have ended."""
        if self._shadow is not None:
            self._shadow.stop()
        self._telemetry.close()

    def metrics(self, process: str) -> MetricsSnapshot:
        """Return what was counted and timed so far; see ``Telemetry.snapshot``."""
        own = self._telemetry.snapshot(process)
        return merged([own, statistics_snapshot(self._statistics)])

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return what the public gRPC API calls."""
        streams = CallLimit(self._config.max_streams, "streams: the most")
        most = self._config.max_stream_batches
        ours = PredictionService(
            self.messages, self.batcher, self.calls, streams=streams, max_stream_batches=most
        )
        open_inference = InferenceService(
            self.inference,
            self.repository,
            self.batcher,
            self.calls,
            streams=streams,
            max_stream_batches=most,
        )
        return ours.handlers(), open_inference.handlers(), *self._management_handlers()

    def hot_methods(self) -> tuple[Mapping[str, Accept], QueuedCalls]:
        """Return what takes the calls of the fast lane, by their methods, and what answers them."""
        telemetry, queue = self._telemetry, self._new_queue()
        calls = Calls(telemetry.recorder(), telemetry.request_log)
        methods = {
            f"/{SERVICE_NAME}/Predict": HotPredict(self.messages, queue, calls).accept,
            f"/{OIP_SERVICE_NAME}/{MODEL_INFER}": HotInfer(self.inference, queue, calls).accept,
        }
        work = QueuedCalls(queue, self._new_workspace(), calls, self.admission, shadow=self._shadow)
        return methods, work

    def _management_handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        manager = self._outside.manager
        if manager is None:
            return ()
        service = ManagementService(manager, self.messages, self.calls, self._management_calls)
        return (service.handlers(),)

    def _new_messages(self) -> Messages:
        return Messages(
            self._outside.generations,
            max_batch_images=self._config.max_batch_images,
            max_message_bytes=self._config.max_message_bytes,
            splitter=self._splitter,
            shadow=self._shadow,
        )

    def _new_inference(self) -> Inference:
        return Inference(
            self._outside.generations,
            self._statistics,
            max_batch_images=self._config.max_batch_images,
            splitter=self._splitter,
        )

    def _new_repository(self) -> Repository:
        return Repository(
            self._outside.generations,
            self._outside.totals,
            max_batch_images=self._config.max_batch_images,
            manager=self._outside.manager,
            management_calls=self._management_calls,
        )

    def _new_shadow(self) -> Shadow | None:
        if not self._config.shadow:
            return None
        counters = self._telemetry.counters()
        outside = self._outside
        return Shadow(outside.generations, self._config.shadow, outside.tallies, counters)

    def _new_queue(self) -> RowQueue:
        queue = RowQueue(
            statistics=self._statistics,
            max_batch_rows=self._config.max_batch_rows,
            max_queue_rows=self._config.max_queue_rows,
        )
        self._telemetry.watch_queue(queue.depth)
        return queue

    def _new_workspace(self) -> Workspace:
        return Workspace(self._config.max_batch_rows)


def _splitter(config: ServerConfig) -> Splitter | None:
    shares = parse_shares(config.split)
    return Splitter(shares, header=config.split_header) if shares else None


def _tokens(config: ServerConfig) -> Tokens | None:
    if config.token_file is None:
        return None
    return Tokens(config.token_file, required=config.require_token)
