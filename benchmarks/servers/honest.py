"""Honest clients: they ask for little, at a steady rate, whether they are answered or not."""

import json
import multiprocessing as mp
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from multiprocessing.synchronize import Event
from threading import local
from typing import Final, Self

import grpc
import numpy as np
import numpy.typing as npt

from mlpserve.client import Client, ClientError
from servers.protocols import MODEL

TIMEOUT_S: Final = 30.0
_THREADS: Final = 16
_ATTEMPTS: Final = 5  # as our client has it
_TOLERANCE: Final = 1e-5
_PAUSES_S: Final = (0.1, 0.3, 0.9, 1.0)

Ask = Callable[[], npt.NDArray[np.float32]]


@dataclass
class Outcome:
    """What became of the calls of one client.

    Attributes:
        took_s: How long each answer took, from when its call was due.
        failures: How often each error came.
        retries: How often a call was sent again over HTTP; our client does so by itself.
    """

    took_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    retries: int = 0

    @property
    def calls(self) -> int:
        """Return how many were made."""
        return len(self.took_s) + self.failures.total()

    def row(self) -> tuple[str, ...]:
        """Return calls, failures, retries, p50, p99 and the longest in milliseconds."""
        cuts = statistics.quantiles(self.took_s, n=100) if len(self.took_s) > 1 else [0.0] * 99
        milliseconds = (1000 * each for each in (cuts[49], cuts[98], max(self.took_s, default=0.0)))
        counts = (self.calls, self.failures.total(), self.retries)
        return (*(f"{each:,}" for each in counts), *(f"{each:.1f}" for each in milliseconds))


class HttpJson:
    """Asks over HTTP with JSON, again where a connection was lost or the server is busy.

    Args:
        port: The server's.
        image: What is asked about.
        outcome: Where retries are counted.
    """

    def __init__(self, port: int, image: npt.NDArray[np.uint8], outcome: Outcome) -> None:
        self._port, self._outcome = port, outcome
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1, image.size]}
        self._body = json.dumps({"inputs": [{**tensor, "data": image.ravel().tolist()}]})
        self._kept = local()

    def ask(self) -> npt.NDArray[np.float32]:
        """Return the probabilities."""
        for pause_s in _PAUSES_S:
            try:
                return self._ask_once()
            except (ConnectionError, HTTPException):
                self._outcome.retries += 1
                time.sleep(pause_s)
        return self._ask_once()

    def _ask_once(self) -> npt.NDArray[np.float32]:
        opened: HTTPConnection | None = getattr(self._kept, "connection", None)
        if opened is None:
            opened = HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        self._kept.connection = None
        try:
            opened.request("POST", f"/v2/models/{MODEL}/infer", self._body)
            with opened.getresponse() as response:
                document = json.load(response)
        except BaseException:
            opened.close()
            raise
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise HTTPException(str(document)[:200])
        if response.status != HTTPStatus.OK:
            raise ValueError(f"{response.status}: {str(document)[:200]}")
        self._kept.connection = opened
        (found,) = (each for each in document["outputs"] if each["name"] == "probabilities")
        return np.array(found["data"], np.float32)


class Honest:
    """A process with one client that asks until it is told to stop.

    Args:
        make: Makes what is asked, in that process.
        per_s: How often it asks.
        expected: The probabilities that it must be answered with.
    """

    def __init__(
        self, make: "Callable[[Outcome], Ask]", per_s: float, expected: npt.NDArray[np.float32]
    ) -> None:
        context = mp.get_context("spawn")
        self._told: mp.SimpleQueue[Outcome] = context.SimpleQueue()
        self._stop: Event = context.Event()
        self._ready: Event = context.Event()
        arguments = (make, per_s, expected, self._told, (self._ready, self._stop))
        self._process = context.Process(target=_ask_steadily, args=arguments)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join(2 * TIMEOUT_S)

    def wait_until_ready(self) -> None:
        """Wait until its first call was answered."""
        self._ready.wait(TIMEOUT_S)

    def stop(self) -> Outcome:
        """Let the calls that are under way end; return what became of all."""
        self._stop.set()
        outcome = self._told.get()
        self._process.join()
        return outcome


def _ask_steadily(
    make: "Callable[[Outcome], Ask]",
    per_s: float,
    expected: npt.NDArray[np.float32],
    told: "mp.SimpleQueue[Outcome]",
    signals: tuple[Event, Event],
) -> None:
    ready, stop = signals
    outcome = Outcome()
    ask = make(outcome)
    ask()  # what is connected and imported by the first call is not the server's
    ready.set()
    with ThreadPoolExecutor(_THREADS) as asking:
        due_s = time.monotonic()
        while not stop.wait(max(0.0, due_s - time.monotonic())):
            asking.submit(_ask_once, ask, due_s, expected, outcome)
            due_s += 1 / per_s
    told.put(outcome)


def _ask_once(ask: Ask, due_s: float, expected: npt.NDArray[np.float32], outcome: Outcome) -> None:
    try:
        found = ask()
    except (ClientError, grpc.RpcError, OSError, HTTPException, ValueError) as error:
        outcome.failures[f"{type(error).__name__}: {error}"] += 1
        return
    if np.allclose(found, expected, rtol=0, atol=_TOLERANCE):
        outcome.took_s.append(time.monotonic() - due_s)
    else:
        outcome.failures["a wrong answer"] += 1


@dataclass(frozen=True)
class GrpcAsk:
    """Makes what asks over gRPC with our client.

    Attributes:
        address: The server's.
        image: (1, D) what is asked about.
        ca: The PEM certificate of the server's authority; empty without TLS.
    """

    address: str
    image: npt.NDArray[np.uint8]
    ca: bytes = b""

    def __call__(self, outcome: Outcome) -> Ask:  # noqa: ARG002 - our client counts no retries
        """Return it."""
        credentials = grpc.ssl_channel_credentials(self.ca) if self.ca else None
        client = Client(self.address, timeout_s=TIMEOUT_S, credentials=credentials)
        return lambda: client.predict(self.image, model=MODEL).probabilities[0]

    def try_once(self) -> None:
        """Ask over a connection of its own.

        Raises:
            OSError: There is no answer.
        """
        credentials = grpc.ssl_channel_credentials(self.ca) if self.ca else None
        try:
            with Client(self.address, credentials=credentials) as client:
                client.predict(self.image, model=MODEL)
        except ClientError as error:
            raise OSError(str(error)) from error


@dataclass(frozen=True)
class HttpAsk:
    """Makes what asks over HTTP with JSON; attributes as those of ``GrpcAsk``."""

    port: int
    image: npt.NDArray[np.uint8]

    def __call__(self, outcome: Outcome) -> Ask:
        """Return it."""
        return HttpJson(self.port, self.image, outcome).ask


def rows(outcomes: Mapping[str, Outcome]) -> list[tuple[str, ...]]:
    """Return a row of each client: its name, and what became of its calls."""
    return [(name, *outcome.row()) for name, outcome in outcomes.items()]


HEAD: Final = ("client", "calls", "failed", "retries", "p50, ms", "p99, ms", "longest, ms")
