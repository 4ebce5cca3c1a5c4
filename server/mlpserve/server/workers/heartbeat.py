"""Finds workers that live but do not run: stopped by a signal, or stuck for good.

A process that hangs is not told of by the system as one that dies is. So each is asked for a sign
of life again and again, and a thread of it that does nothing else answers.
"""

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Watched(Protocol):
    """What ``HeartbeatMonitor`` needs of a worker."""

    @property
    def is_open(self) -> bool:
        """Return whether it answers calls; before, all that it is told has limits of its own."""

    @property
    def has_ended(self) -> bool:
        """Return whether it answers no more."""

    def gives_sign(self) -> bool:
        """Return whether the last sign came that was asked for; ask for the next."""


_WatchedT = TypeVar("_WatchedT", bound=Watched)


class HeartbeatMonitor(Generic[_WatchedT]):
    """Counts for how many looks workers give no sign of life. For one thread at a time.

    Looks are counted, and not seconds: while this process is stopped, or all of the machine, time
    goes on but nobody looks, and so nobody is blamed for it.

    Args:
        workers: Returns those that there are.
        most_looks: So many looks without a sign are too many.
    """

    def __init__(self, workers: Callable[[], Iterable[_WatchedT]], *, most_looks: int) -> None:
        self._workers = workers
        self._most_looks = most_looks
        self._silent_looks: dict[_WatchedT, int] = {}

    def look(self) -> list[_WatchedT]:
        """Ask all for a sign, and return those that have just given none for too long."""
        watched = [worker for worker in self._workers() if worker.is_open and not worker.has_ended]
        before = self._silent_looks
        self._silent_looks = {
            worker: 0 if worker.gives_sign() else before.get(worker, 0) + 1 for worker in watched
        }
        silent = self._silent_looks.items()
        return [worker for worker, looks in silent if looks == self._most_looks]
