"""What all processes of a server have counted, also those that are gone: no counter ever falls."""

from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Generic, TypeVar

from mlpserve.server.metrics.snapshots import Snapshot, merged, of_the_past

_Key = TypeVar("_Key", bound=Hashable)


class Aggregate(Generic[_Key]):
    """Adds up the snapshots of several processes. Safe to use from many threads.

    A process that does not answer in time keeps what it had counted when it last did.

    Args:
        collect: Asks all processes that live, and returns the snapshots of those that answer, each
            under a key that no other process of this server has or had.
    """

    def __init__(self, collect: Callable[[], Mapping[_Key, Snapshot]]) -> None:
        self._collect = collect
        self._lock = Lock()
        self._last: dict[_Key, Snapshot] = {}
        self._retired: Snapshot = {}

    def snapshot(self) -> Snapshot:
        """Return what all of them have counted."""
        answers = self._collect()
        with self._lock:
            self._last.update(answers)
            silent = [of_the_past(last) for key, last in self._last.items() if key not in answers]
            return merged([self._retired, *silent, *answers.values()])

    def retire(self, key: _Key) -> None:
        """Note that a process is gone for good. What it counted since the last scrape is lost."""
        with self._lock:
            last = self._last.pop(key, {})
            self._retired = merged([self._retired, of_the_past(last)])
