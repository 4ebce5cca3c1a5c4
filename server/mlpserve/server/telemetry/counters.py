"""Counters of a serving process: what its threads count and time, half a microsecond a request.

A set of counters has one writer at a time, and any thread may take a snapshot of it meanwhile. Such
a snapshot may have the last request in one number and not yet in another; the next has it in all.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, Protocol
from weakref import WeakKeyDictionary

from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.metrics import SECONDS
from mlpserve.server.telemetry.request_record import BatchTiming, RequestRecord
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, Series, merged
from mlpserve.server.telemetry.statistics import (
    BatchCounts,
    FailureCounts,
    ModelStatistics,
    ShadowCounts,
    ShadowPair,
    added,
    size_class,
)

if TYPE_CHECKING:  # it takes NumPy, which the parent of several processes does without
    from mlpserve.model.metadata import Metadata

_OK: Final = "OK"
_Arguments = ParamSpec("_Arguments")


class Version(Protocol):
    """A version of a model that is served. Its statistics go with it when it is unloaded."""

    @property
    def metadata(self) -> "Metadata":
        """Return what it is called."""


def _no_counts() -> list[int]:
    return [0] * (len(SECONDS) + 1)


@dataclass(slots=True)
class Times:
    """Times of answered requests that are alike in their labels."""

    count: int = 0
    queue_counts: list[int] = field(default_factory=_no_counts)
    compute_counts: list[int] = field(default_factory=_no_counts)
    total_counts: list[int] = field(default_factory=_no_counts)
    queue_s: float = 0.0
    compute_s: float = 0.0
    total_s: float = 0.0

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
    """Counters of one thread."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str, int], Times] = {}
        self._calls: dict[tuple[str, ...], int] = {}
        self._batches: dict[str, list[int]] = {}
        self._statistics: WeakKeyDictionary[Version, ModelStatistics] = WeakKeyDictionary()
        self._shadows: dict[ShadowPair, ShadowCounts] = {}

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

    def add_batch(self, model: Version, timing: BatchTiming) -> None:
        """Count a pass, and the requests that it answers."""
        requests, images, arrived_ns, read_ns, started_ns, ended_ns = timing
        name = model.metadata.name
        sizes = self._batches.get(name)
        if sizes is None:
            sizes = self._batches[name] = [0] * (len(metrics.ROWS) + 2)
        sizes[bisect_left(metrics.ROWS, images)] += 1
        sizes[-1] += images
        statistics = self._statistics_of(model)
        statistics.last_batch_ms = int(time() * 1000)
        size = size_class(images)
        counts = statistics.by_size.get(size)
        if counts is None:
            counts = statistics.by_size[size] = BatchCounts()
        counts.batches += 1
        counts.images += images
        counts.requests += requests
        counts.latency_ns += requests * ended_ns - arrived_ns
        counts.queue_ns += requests * started_ns - read_ns
        counts.decode_ns += read_ns - arrived_ns
        counts.compute_ns += ended_ns - started_ns
        counts.compute_ns_by_request += requests * (ended_ns - started_ns)

    def add_replies(self, model: Version, timing: BatchTiming, *, ns: int) -> None:
        """Count how long the answers of a pass, that was counted, took to be handed on."""
        counts = self._statistics_of(model).by_size[size_class(timing.images)]
        counts.latency_ns += timing.requests * ns
        counts.reply_ns += ns
        counts.reply_ns_by_request += timing.requests * ns

    def add_failed(self, model: Version, *, requests: int, ns: int) -> None:
        """Count requests that were refused, dropped or failed, after so long together."""
        statistics = self._statistics_of(model)
        statistics.failed = added(statistics.failed, FailureCounts(requests, ns))

    def add_shadow(self, pair: ShadowPair, counts: ShadowCounts) -> None:
        """Count images that a version answered, and its shadow was to classify."""
        self._shadows[pair] = added(self._shadows.get(pair, ShadowCounts()), counts)

    def snapshot(self) -> MetricsSnapshot:
        """Return all that was counted so far."""
        # The dictionaries are copied in one step each, because the writer goes on meanwhile.
        answered = [times.snapshot(*key) for key, times in list(self._times.items())]
        batches = [([model], list(value)) for model, value in list(self._batches.items())]
        others: MetricsSnapshot = {
            metrics.REQUESTS.name: [(list(key), count) for key, count in list(self._calls.items())],
            metrics.BATCH_ROWS.name: batches,
        }
        shadows = [_shadow_snapshot(*each) for each in list(self._shadows.items())]
        models = [model for ref in self._statistics.keyrefs() if (model := ref()) is not None]
        statistics = [_statistics_snapshot(model, self._statistics[model]) for model in models]
        return merged([*answered, others, *shadows, *statistics])

    def _statistics_of(self, model: Version) -> ModelStatistics:
        statistics = self._statistics.get(model)
        if statistics is None:
            statistics = self._statistics[model] = ModelStatistics()
        return statistics


def _locked(
    method: "Callable[Concatenate[Counters, _Arguments], None]",
) -> "Callable[Concatenate[SharedCounters, _Arguments], None]":
    """Return a method of ``Counters`` for many threads."""

    @wraps(method)
    def locked(
        counters: "SharedCounters", /, *args: _Arguments.args, **options: _Arguments.kwargs
    ) -> None:
        with counters.lock:
            method(counters, *args, **options)

    return locked


class SharedCounters(Counters):
    """Counters of many threads."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()

    add_answered = _locked(Counters.add_answered)
    add_call = _locked(Counters.add_call)
    add_batch = _locked(Counters.add_batch)
    add_replies = _locked(Counters.add_replies)
    add_failed = _locked(Counters.add_failed)
    add_shadow = _locked(Counters.add_shadow)


def _statistics_snapshot(model: Version, statistics: ModelStatistics) -> MetricsSnapshot:
    labels = [model.metadata.name, str(model.metadata.version)]
    by_size = list(statistics.by_size.items())
    return {
        metrics.BATCH_COUNTS.name: [
            ([*labels, str(size)], counts.values()) for size, counts in by_size
        ],
        metrics.FAILURE_COUNTS.name: [(labels, statistics.failed)],
        metrics.LAST_BATCH.name: [(labels, statistics.last_batch_ms)],
    }


def _shadow_snapshot(pair: ShadowPair, counts: ShadowCounts) -> MetricsSnapshot:
    name, answering, shadow = pair.name, str(pair.answering), str(pair.shadow)
    differing = counts.compared - counts.agreeing
    rows: Series = [
        ([name, shadow, "true"], counts.agreeing),
        ([name, shadow, "false"], differing),
    ]
    return {
        metrics.SHADOW_ROWS.name: rows if counts.compared else [],
        metrics.SHADOW_COUNTS.name: [([name, answering, shadow], counts)],
    }
