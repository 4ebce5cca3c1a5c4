"""What all processes of a server have counted, also those that are gone: no counter ever falls."""

from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Generic, TypeVar

from mlpserve.server.telemetry.metrics.snapshots import MetricsSnapshot, merged, of_the_past

_Key = TypeVar("_Key", bound=Hashable)


class Aggregate(Generic[_Key]):
    """Adds up the snapshots of several processes. Safe to use from many threads.

    Args:
        collect: Asks all processes, and returns what each has counted, under a key that no other
            process of this server has or had; None for one that lives but does not answer, which
            keeps what it had counted when it last did. One that is not among them is gone.
    """

    def __init__(self, collect: Callable[[], Mapping[_Key, MetricsSnapshot | None]]) -> None:
        self._collect = collect
        self._lock = Lock()
        self._last: dict[_Key, MetricsSnapshot] = {}
        self._retired: MetricsSnapshot = {}

    def snapshot(self) -> MetricsSnapshot:
        """Return what all of them have counted. What one counts after it was last asked is lost."""
        with self._lock:
            told = self._collect()
            for key in self._last.keys() - told.keys():
                self._retired = merged([self._retired, of_the_past(self._last.pop(key))])
            answers = {key: answer for key, answer in told.items() if answer is not None}
            self._last.update(answers)
            silent = [of_the_past(last) for key, last in self._last.items() if key not in answers]
            return merged([self._retired, *silent, *answers.values()])
