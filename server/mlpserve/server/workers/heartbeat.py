"""Heartbeat of the workers: finds those that live but do not run, stopped or stuck for good.

The system tells of a process that dies, but not of one that hangs. So each is asked for a heartbeat
again and again. It answers how often the loop that serves has turned, once a second at least: so a
process is missed as well of which another thread still runs.
"""

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Monitored(Protocol):
    """What ``HeartbeatMonitor`` needs of a worker."""

    @property
    def is_open(self) -> bool:
        """Return whether it answers requests; before, all calls to it have limits of their own."""

    @property
    def has_ended(self) -> bool:
        """Return whether it answers no more."""

    def check_heartbeat(self) -> bool:
        """Return whether it has served since the last heartbeat that came; ask for the next."""


_MonitoredT = TypeVar("_MonitoredT", bound=Monitored)


class HeartbeatMonitor(Generic[_MonitoredT]):
    """Counts how many heartbeats of each worker are missing. For one thread at a time.

    Checks are counted, and not seconds: while this process is stopped, or all of the machine, time
    goes on but nobody checks, and so nobody is blamed for it.

    Args:
        workers: Returns those that there are.
        max_missed: So many checks in a row without a heartbeat are too many.
    """

    def __init__(self, workers: Callable[[], Iterable[_MonitoredT]], *, max_missed: int) -> None:
        self._workers = workers
        self._max_missed = max_missed
        self._missed: dict[_MonitoredT, int] = {}

    def check(self) -> list[_MonitoredT]:
        """Ask all for a heartbeat; return those that have just missed the last that they may."""
        live = [worker for worker in self._workers() if worker.is_open and not worker.has_ended]
        before = self._missed
        self._missed = {
            worker: 0 if worker.check_heartbeat() else before.get(worker, 0) + 1 for worker in live
        }
        return [worker for worker, missed in self._missed.items() if missed == self._max_missed]
