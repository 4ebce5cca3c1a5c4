"""All that one serving process measures."""

from collections.abc import Callable

from mlpserve.server.telemetry.metrics import catalog
from mlpserve.server.telemetry.metrics.counters import Counters, SharedCounters
from mlpserve.server.telemetry.metrics.processes import process_snapshot
from mlpserve.server.telemetry.metrics.snapshots import MetricsSnapshot, merged


class Measures:
    """The counters and queues of a process."""

    def __init__(self) -> None:
        self._counters: list[Counters] = []
        self._depths: list[Callable[[], tuple[int, int]]] = []

    def own_counters(self) -> Counters:
        """Return a new set of counters, for one thread at a time."""
        self._counters.append(Counters())
        return self._counters[-1]

    def shared_counters(self) -> Counters:
        """Return a new set of counters, for many threads."""
        self._counters.append(SharedCounters())
        return self._counters[-1]

    def watch_queue(self, depth: Callable[[], tuple[int, int]]) -> None:
        """Have a queue counted.

        Args:
            depth: Returns how many requests wait in it, and how many rows; called from any thread.
        """
        self._depths.append(depth)

    def snapshot(self, process: str) -> MetricsSnapshot:
        """Return what was measured so far; safe to call from any thread.

        Args:
            process: What this process is called in labels.
        """
        depths = [depth() for depth in self._depths]
        queues: MetricsSnapshot = {
            catalog.QUEUE_REQUESTS.name: [([], sum(requests for requests, _ in depths))],
            catalog.QUEUE_ROWS.name: [([], sum(rows for _, rows in depths))],
            catalog.WORKERS.name: [([], 1)],
        }
        counted = [counters.snapshot() for counters in self._counters]
        return merged([*counted, queues, process_snapshot(process)])
