"""Processors of the workers: each has its own, and that of an idle worker is lent to busy ones.

A worker's threads hand each call to one another, which is cheapest on one processor. But many calls
over one connection are one worker's, and it has more than one processor's work for them: gRPC's
threads read and write while the fast lane computes.

On one processor, a thread that a request has woken interrupts the one that reads the next requests.
So the threads of a worker that has work do not preempt others: they read all that has come, and one
pass answers it. Those of an idle worker do, or a lone call would wait for other programs.
"""

import os
from collections.abc import Callable, Iterable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from mlpserve.server.settings.config import ServerConfig

# Of one processor's time. Who is idle or busy is so until the second of two is passed, so that
# nobody's processors change with each check.
_IDLE_BELOW, _NOT_IDLE_ABOVE = 0.2, 0.4
_BUSY_ABOVE, _NOT_BUSY_BELOW = 0.5, 0.35
LENDING_PERIOD_S: Final = 0.2
# What was used in a longer time says nothing of now: this process, or all, have been paused.
_MAX_PERIOD_S: Final = 5 * LENDING_PERIOD_S


class Place(NamedTuple):
    """Where and how a worker runs.

    Attributes:
        borrowed: The processors that it may use beside its own.
        preempts: Whether its threads interrupt others when they have something to do.
    """

    borrowed: frozenset[int] = frozenset()
    preempts: bool = True


class Placed(Protocol):
    """What ``ProcessorLender`` needs of a worker."""

    @property
    def processor(self) -> int | None:
        """Return its own processor; None where it may use any."""

    @property
    def is_open(self) -> bool:
        """Return whether it answers requests; what it uses before says nothing of them."""

    def cpu_s(self) -> float | None:
        """Return how much processor time it has used; None where it has ended."""

    def move(self, place: Place) -> None:
        """Have all its threads run there."""


_PlacedT = TypeVar("_PlacedT", bound=Placed)


class ProcessorLender(Generic[_PlacedT]):
    """Lends the processors of idle workers to busy ones, and has these preempt nobody otherwise.

    For one thread at a time.

    Args:
        workers: Returns those that there are; each has a processor of its own.
    """

    def __init__(self, workers: Callable[[], Iterable[_PlacedT]]) -> None:
        self._workers = workers
        self._checked_s = 0.0
        self._used_s: dict[_PlacedT, float] = {}
        self._idle: set[_PlacedT] = set()
        self._busy: set[_PlacedT] = set()
        self._places: dict[_PlacedT, Place] = {}

    def check(self, now_s: float) -> None:
        """Lend, and take back, by what each has used since the last check.

        Args:
            now_s: The time by any clock.
        """
        was_paused = now_s - self._checked_s > _MAX_PERIOD_S
        shares = self._shares(now_s)
        if was_paused:
            return
        idle, busy = self._idle, self._busy
        self._idle = {
            each
            for each, share in shares.items()
            if share < (_NOT_IDLE_ABOVE if each in idle else _IDLE_BELOW)
        }
        self._busy = {
            each
            for each, share in shares.items()
            if share > (_NOT_BUSY_BELOW if each in busy else _BUSY_ABOVE)
        }
        lent = frozenset(each.processor for each in self._idle if each.processor is not None)
        before = self._places
        self._places = {each: self._place(each, lent) for each in shares}
        for each, place in self._places.items():
            if place != before.get(each, Place()):
                each.move(place)

    def _place(self, worker: _PlacedT, lent: frozenset[int]) -> Place:
        if lent and worker in self._busy:
            return Place(lent)
        return Place(preempts=worker in self._idle)

    def _shares(self, now_s: float) -> dict[_PlacedT, float]:
        """Return how much of a processor's time each has used since the last check."""
        before, elapsed_s = self._used_s, now_s - self._checked_s
        found = {each: each.cpu_s() for each in self._workers() if each.is_open}
        self._used_s = {each: used_s for each, used_s in found.items() if used_s is not None}
        self._checked_s = now_s
        known = self._used_s.keys() & before.keys()
        return {each: (self._used_s[each] - before[each]) / elapsed_s for each in known}


def own_processors(config: ServerConfig) -> list[int] | None:
    """Return the processor that each worker keeps to; None where that is left to the system.

    They have their own only where each can have one and no processor is left over: otherwise a
    worker might have to share one with another program while others idle.
    """
    if config.pin and config.threads == 1 and hasattr(os, "sched_getaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) == config.workers:
            return usable
    return None
