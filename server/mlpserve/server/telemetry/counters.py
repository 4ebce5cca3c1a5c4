"""What the threads of a serving process count and time, at half a microsecond a request.

A set of counters has one writer at a time, and any thread may take a snapshot of it meanwhile. Such
a snapshot may have the last request in one number and not yet in another; the next has it in all.
"""

from bisect import bisect_left
from collections.abc import Mapping
from threading import Lock
from typing import Final

from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.metrics import SECONDS
from mlpserve.server.telemetry.request_record import RequestRecord
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, Series, merged

_OK: Final = "OK"
_BUCKETS: Final = len(SECONDS) + 1


class Times:
    """How long the answered requests took that are alike in their labels."""

    __slots__ = (
        "compute_counts",
        "compute_s",
        "count",
        "queue_counts",
        "queue_s",
        "total_counts",
        "total_s",
    )

    def __init__(self) -> None:
        self.count = 0
        self.queue_counts = [0] * _BUCKETS
        self.compute_counts = [0] * _BUCKETS
        self.total_counts = [0] * _BUCKETS
        self.queue_s = self.compute_s = self.total_s = 0.0

    def snapshot(self, method: str, model: str, version: int) -> MetricsSnapshot:
        """Return the metrics of these requests."""
        labels = [method, model]
        return {
            metrics.REQUESTS.name: [([*labels, str(version), _OK], self.count)],
            metrics.QUEUE_SECONDS.name: [(labels, [*self.queue_counts, self.queue_s])],
            metrics.COMPUTE_SECONDS.name: [(labels, [*self.compute_counts, self.compute_s])],
            metrics.REQUEST_SECONDS.name: [(labels, [*self.total_counts, self.total_s])],
        }


class Counters:
    """What one thread counts."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str, int], Times] = {}
        self._calls: dict[tuple[str, ...], int] = {}
        self._batches: dict[str, list[int]] = {}
        self._shadow_rows: dict[tuple[str, ...], int] = {}

    def add_answered(self, record: RequestRecord, ended_ns: int) -> None:
        """Count a request that a network has answered. A time that equals a bound is below it.

        Args:
            record: The request.
            ended_ns: When it was answered, by the clock of the record.
        """
        key = (record.method, record.model, record.version)
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = Times()
        queue_s = (record.started_ns - record.arrived_ns) / 1e9
        compute_s = (record.computed_ns - record.started_ns) / 1e9
        total_s = (ended_ns - record.arrived_ns) / 1e9
        # Written out, because this is done for each request: calls would take twice as long.
        times.count += 1
        times.queue_counts[bisect_left(SECONDS, queue_s)] += 1
        times.compute_counts[bisect_left(SECONDS, compute_s)] += 1
        times.total_counts[bisect_left(SECONDS, total_s)] += 1
        times.queue_s += queue_s
        times.compute_s += compute_s
        times.total_s += total_s

    def add_call(self, method: str, code: str, *, model: str = "", version: int = 0) -> None:
        """Count a call that was refused, or one that no network ran for.

        Args:
            method: The rpc.
            code: The name of its status.
            model: The name of a model that is served; empty where it is not known.
            version: That version of it which was asked; 0 where it is not known.
        """
        key = (method, model, str(version or ""), code)
        self._calls[key] = self._calls.get(key, 0) + 1

    def add_batch(self, model: str, rows: int) -> None:
        """Count images that went through a network together."""
        value = self._batches.get(model)
        if value is None:
            value = self._batches[model] = [0] * (len(metrics.ROWS) + 2)
        value[bisect_left(metrics.ROWS, rows)] += 1
        value[-1] += rows

    def add_shadow(self, model: str, version: int, *, rows: int, agreeing: int) -> None:
        """Count images that a shadow classified, and those that it gave the answer's label."""
        for agrees, count in (("true", agreeing), ("false", rows - agreeing)):
            key = (model, str(version), agrees)
            self._shadow_rows[key] = self._shadow_rows.get(key, 0) + count

    def snapshot(self) -> MetricsSnapshot:
        """Return all that was counted so far."""
        # The dictionaries are copied in one step each, because the writer goes on meanwhile.
        answered = [times.snapshot(*key) for key, times in list(self._times.items())]
        batches = [([model], list(value)) for model, value in list(self._batches.items())]
        others: MetricsSnapshot = {
            metrics.REQUESTS.name: _series(self._calls),
            metrics.BATCH_ROWS.name: batches,
            metrics.SHADOW_ROWS.name: _series(self._shadow_rows),
        }
        return merged([*answered, others])


class SharedCounters(Counters):
    """What many threads count together."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()

    def add_answered(self, record: RequestRecord, ended_ns: int) -> None:
        """See ``Counters.add_answered``."""
        with self._lock:
            super().add_answered(record, ended_ns)

    def add_call(self, method: str, code: str, *, model: str = "", version: int = 0) -> None:
        """See ``Counters.add_call``."""
        with self._lock:
            super().add_call(method, code, model=model, version=version)

    def add_batch(self, model: str, rows: int) -> None:
        """See ``Counters.add_batch``."""
        with self._lock:
            super().add_batch(model, rows)

    def add_shadow(self, model: str, version: int, *, rows: int, agreeing: int) -> None:
        """See ``Counters.add_shadow``."""
        with self._lock:
            super().add_shadow(model, version, rows=rows, agreeing=agreeing)


def _series(counts: Mapping[tuple[str, ...], int]) -> Series:
    return [(list(labels), count) for labels, count in list(counts.items())]
