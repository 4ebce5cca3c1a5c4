"""What all abuses have in common: a rate, what they hold open, and the process that runs them."""

import multiprocessing as mp
import os
import random
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Final, Protocol, Self

import grpc

TIMEOUT_S: Final = 20.0
# So that abusers disturb by what the server has to do, and not by the processors that they take.
_NICENESS: Final = 15
_CODES: Final = {str(code.value[0]): code.name for code in grpc.StatusCode}


@dataclass(frozen=True)
class Target:
    """The servers that are abused, as they run.

    Attributes:
        models: The models folder of the first.
        grpc_port, http_port, metrics_port: Where the first listens, without TLS.
        tls_http_port: Where the second listens for HTTPS.
        process_id: The first process of the first.
    """

    models: Path
    grpc_port: int
    http_port: int
    metrics_port: int
    tls_http_port: int
    process_id: int

    @property
    def address(self) -> str:
        """Return the address of gRPC."""
        return f"127.0.0.1:{self.grpc_port}"


class Abuse(ABC):
    """Does something to a server each time that it is told to.

    Args:
        target: What is abused.
        rng: Where its choices come from.

    Attributes:
        what: What is done, for the report.
        per_s: How often.
        during: The part of the run in which it is done, from its start, 0 to 1.
    """

    what: ClassVar[str]
    per_s: ClassVar[float]
    during: ClassVar[float] = 1.0

    def __init__(self, target: Target, rng: random.Random) -> None:
        self.target = target
        self.rng = rng

    @abstractmethod
    def act(self) -> Iterable[str]:
        """Do it once; return the statuses that are known by now."""

    def close(self) -> Iterable[str]:
        """Let go of what is held open; return the statuses that came meanwhile."""
        return ()


class Closable(Protocol):
    """A connection, or the like."""

    def close(self) -> object:
        """Close it."""


class Held:
    """The last few things that were opened; those before them are closed.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.all: deque[Any] = deque()

    def add(self, opened: Closable) -> None:
        """Keep one, and close the oldest where there are too many."""
        self.all.append(opened)
        if len(self.all) > self._limit:
            self.all.popleft().close()

    def close(self) -> None:
        """Close all."""
        while self.all:
            self.all.popleft().close()


def status_name(code: str) -> str:
    """Return the name of a status of gRPC by its number."""
    return _CODES.get(code, code)


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        kinds: All abuses, done at once.
        target: To what.
        seed: Of their choices.
        duration_s: For how long.
    """

    kinds: Sequence[type[Abuse]]
    target: Target
    seed: int
    duration_s: float


class Abusers:
    """A process that does all abuses of a plan, from when this is made.

    Args:
        plan: What it does.
    """

    def __init__(self, plan: Plan) -> None:
        context = mp.get_context("spawn")
        self._told: mp.SimpleQueue[dict[str, Counter[str]]] = context.SimpleQueue()
        self._stop = context.Event()
        self._process = context.Process(target=_do_all, args=(plan, self._told, self._stop))
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join(2 * TIMEOUT_S)

    def statuses(self) -> "dict[str, Counter[str]]":
        """Wait until it is time; return how often each status came of each abuse."""
        return self._told.get()


def _do_all(plan: Plan, told: "mp.SimpleQueue[dict[str, Counter[str]]]", stop: Event) -> None:
    os.nice(_NICENESS)
    statuses = {kind.what: Counter[str]() for kind in plan.kinds}
    threads = []
    for number, kind in enumerate(plan.kinds):
        rng = random.Random(plan.seed * 1000 + number)  # noqa: S311 - to be repeatable
        arguments = (kind(plan.target, rng), statuses[kind.what], plan.duration_s, stop)
        threads.append(Thread(target=_do, args=arguments, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.put(statuses)


def _do(abuse: Abuse, statuses: "Counter[str]", duration_s: float, stop: Event) -> None:
    """Do one abuse at its rate until it is time; what is late is left out, and not caught up."""
    ends_s = time.monotonic() + duration_s
    until_s = time.monotonic() + duration_s * abuse.during
    next_s = time.monotonic() + abuse.rng.random() / abuse.per_s
    while next_s < until_s and not stop.wait(max(0.0, next_s - time.monotonic())):
        _note(abuse.act, statuses)
        next_s = max(next_s + 1 / abuse.per_s, time.monotonic())
    stop.wait(max(0.0, ends_s - time.monotonic()))
    _note(abuse.close, statuses)


def _note(act: Any, statuses: "Counter[str]") -> None:  # noqa: ANN401 - a method of Abuse
    try:
        statuses.update(act())
    except OSError as error:
        statuses[type(error).__name__] += 1
    except Exception as error:  # noqa: BLE001 - one that breaks must not hide behind the others
        print(f"{abuse_name(act)}: {error!r}", file=sys.stderr, flush=True)
        statuses[f"broken: {type(error).__name__}"] += 1


def abuse_name(act: Any) -> str:  # noqa: ANN401 - as above
    """Return the name of the abuse that has a method."""
    return type(act.__self__).__name__
