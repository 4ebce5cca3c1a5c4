"""Clients that ask all the time, and what became of their calls."""

from collections import Counter
from threading import Condition, Thread
from time import monotonic
from typing import Any, Final, NamedTuple

import grpc
import numpy as np

from mlpserve.model.network import Network
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S: Final = 60.0
IMAGES: Final = np.random.default_rng(1).integers(0, 256, (5, 6), np.uint8)
REQUEST: Final = prediction_pb2.PredictRequest(
    images=prediction_pb2.ImageBatch(
        count=len(IMAGES), data_type=prediction_pb2.DATA_TYPE_UINT8, data=IMAGES.tobytes()
    )
)
# As our client has it.
_RETRY_POLICY: Final = (
    '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", '
    '"maxBackoff": "1s", "backoffMultiplier": 3, "retryableStatusCodes": ["UNAVAILABLE", '
    '"CANCELLED"]}}]}'
)
_RECONNECTING: Final = [
    ("grpc.use_local_subchannel_pool", 1),  # or all clients of a process share a connection
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Figures(NamedTuple):
    """What became of calls.

    Attributes:
        sent: How many were made.
        failed: How many ended with an error.
        wrong: How many were answered with something else than the network's probabilities.
        lost: How many got neither before their deadline.
        longest_s: How long the longest that was answered took.
    """

    sent: int
    failed: int
    wrong: int
    lost: int
    longest_s: float


class SteadyLoad:
    """Clients that ask without a pause, each over a connection of its own, and check each answer.

    Begins when it is made. Safe to use from one thread.

    Args:
        address: The server's.
        network: What it serves.
        clients: How many ask at once.
        retries: Whether they try again as our client library does, or never.
        timeout_s: How long a call may take before it counts as lost.
        credentials: For TLS.
        metadata: What is sent along.

    Attributes:
        errors: How often each error came, by its status and message.
    """

    def __init__(
        self,
        address: str,
        network: Network,
        *,
        clients: int = 4,
        retries: bool = True,
        timeout_s: float = TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.errors: Counter[str] = Counter()
        self._expected = network.probabilities(IMAGES.astype(np.float32) / 255)
        self._timeout_s, self._metadata = timeout_s, metadata
        self._changed = Condition()
        self._is_stopping = False
        self._answered = [0] * clients
        self._failed = self._wrong = self._lost = 0
        self._longest_s = 0.0
        self._channels = [_channel(address, credentials, retries=retries) for _ in range(clients)]
        self._threads = [Thread(target=self._ask_on, args=(each,)) for each in range(clients)]
        for thread in self._threads:
            thread.start()

    def wait_for_answers(self, more: int = 50) -> None:
        """Wait until each client has been answered some more times."""
        with self._changed:
            wanted = [answered + more for answered in self._answered]

            def all_are_answered() -> bool:
                return all(now >= then for now, then in zip(self._answered, wanted, strict=True))

            assert self._changed.wait_for(all_are_answered, 2 * TIMEOUT_S), self.errors

    def answered(self) -> list[int]:
        """Return how often each client has been answered so far."""
        with self._changed:
            return list(self._answered)

    def stop(self) -> Figures:
        """Let the calls under way end, and return what became of all."""
        with self._changed:
            self._is_stopping = True
        for thread in self._threads:
            thread.join()
        for channel in self._channels:
            channel.close()
        sent = sum(self._answered) + self._failed + self._lost
        return Figures(sent, self._failed, self._wrong, self._lost, self._longest_s)

    def _ask_on(self, client: int) -> None:
        stub = prediction_pb2_grpc.PredictionServiceStub(self._channels[client])
        while not self._is_stopping:
            began_s = monotonic()
            try:
                response = stub.Predict(REQUEST, timeout=self._timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                self._note_error(error)
                # Who asks on without a connection counts only how fast it can be refused by itself.
                grpc.channel_ready_future(self._channels[client]).result(TIMEOUT_S)
            else:
                self._note_answer(client, response, monotonic() - began_s)

    def _note_error(self, error: Any) -> None:
        with self._changed:
            self.errors[f"{error.code().name}: {error.details()}"] += 1
            is_lost = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            self._lost += is_lost
            self._failed += not is_lost

    def _note_answer(
        self, client: int, response: prediction_pb2.PredictResponse, took_s: float
    ) -> None:
        found = np.frombuffer(response.probabilities, "<f4").reshape(len(IMAGES), -1)
        is_right = np.allclose(found, self._expected, rtol=0, atol=1e-5)
        with self._changed:
            self._answered[client] += 1
            self._wrong += not is_right
            self._longest_s = max(self._longest_s, took_s)
            self._changed.notify_all()


def _channel(
    address: str, credentials: grpc.ChannelCredentials | None, *, retries: bool
) -> grpc.Channel:
    retrying = [("grpc.service_config", _RETRY_POLICY)] if retries else [("grpc.enable_retries", 0)]
    options: list[tuple[str, Any]] = [*_RECONNECTING, *retrying]
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)
