"""Clients that ask servers in containers all the time, until SIGTERM; run in the client's image.

Half of them are our client library, which tries again; half are channels that never do. Says
"under load" once all were answered, and at the end, in a line for each half, what became of calls.
"""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final

import grpc
import numpy as np

from mlpserve.client import Client, ClientError
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

CLIENTS: Final = 2  # of each half
TIMEOUT_S: Final = 30.0
IMAGES: Final = np.zeros((5, 28, 28), np.uint8)
REQUEST: Final = prediction_pb2.PredictRequest(
    model_version=1,
    images=prediction_pb2.ImageBatch(
        count=len(IMAGES), data_type=prediction_pb2.DATA_TYPE_UINT8, data=IMAGES.tobytes()
    ),
)
_ROUND_ROBIN: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'
_RECONNECTING: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass
class Half:
    """What became of the calls of half of the clients."""

    sent: int = 0
    failed: int = 0
    wrong: int = 0
    longest_s: float = 0.0


def ask_on(ask: Callable[[], bytes], half: Half, lock: Lock, stopping: Event) -> None:
    """Call without a pause, and count; each answer must be the first one again."""
    expected = ask()
    while not stopping.is_set():
        began_s, answer = monotonic(), None
        try:
            answer = ask()
        except (grpc.RpcError, ClientError) as error:
            print(f"failed: {error}", file=sys.stderr)
        with lock:
            half.sent += 1
            half.failed += answer is None
            half.wrong += answer not in {None, expected}
            half.longest_s = max(half.longest_s, monotonic() - began_s)


def retrying(target: str) -> Callable[[], bytes]:
    """Return a call of a client of our library."""
    client = Client(target, timeout_s=TIMEOUT_S)

    def ask() -> bytes:
        return client.predict(IMAGES, version=1).probabilities.tobytes()

    return ask


def never_retrying(target: str) -> Callable[[], bytes]:
    """Return a call of a channel that goes round all addresses, and never tries again."""
    options = [*_RECONNECTING, ("grpc.enable_retries", 0), ("grpc.service_config", _ROUND_ROBIN)]
    stub = prediction_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(target, options))
    return lambda: stub.Predict(REQUEST, timeout=TIMEOUT_S).probabilities


def main(target: str) -> None:
    """Ask until SIGTERM."""
    stopping, lock = Event(), Lock()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    halves = {"clients that retry": (Half(), retrying), "without": (Half(), never_retrying)}
    threads = [
        Thread(target=ask_on, args=(connect(target), half, lock, stopping))
        for half, connect in halves.values()
        for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    while min(half.sent for half, _ in halves.values()) < 100:
        stopping.wait(0.1)
    print("under load", flush=True)
    for thread in threads:
        thread.join()
    for name, (half, _) in halves.items():
        counts = f"{half.sent} sent, {half.failed} failed, {half.wrong} wrong"
        print(f"{name}: {counts}, longest {half.longest_s:.2f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
