"""Exposition: a snapshot as the text that Prometheus reads, version 0.0.4 of its format."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from mlpserve.server.telemetry.metrics import METRICS, Metric
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, Value


def exposition(snapshot: MetricsSnapshot) -> str:
    """Return a page with all metrics, in the order of `metrics`."""
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot))
    return generate_latest(registry).decode()


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: MetricsSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Family]:
        for metric in METRICS:
            family = Family(metric.name.removesuffix("_total"), metric.help, metric.kind)
            for labels, value in self._snapshot.get(metric.name, ()):
                _add(family, metric, dict(zip(metric.labels, labels, strict=True)), value)
            yield family


def _add(family: Family, metric: Metric, labels: dict[str, str], value: Value) -> None:
    if not isinstance(value, Sequence):
        family.add_sample(metric.name, labels, value)
        return
    *counts, total = value
    bounds = (*(f"{bound:g}" for bound in metric.bounds), "+Inf")
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, count)
    family.add_sample(f"{metric.name}_sum", labels, total)
    family.add_sample(f"{metric.name}_count", labels, sum(counts))
