"""A snapshot as the text that Prometheus reads.

The format is https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from mlpserve.server.telemetry.metrics import METRICS, Metric
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, Value

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def exposition(snapshot: MetricsSnapshot) -> str:
    """Return a page with all metrics of the catalog, in its order."""
    return "".join(f"{line}\n" for metric in METRICS for line in _lines(metric, snapshot))


def _lines(metric: Metric, snapshot: MetricsSnapshot) -> Iterator[str]:
    yield f"# HELP {metric.name} {_escaped(metric.help)}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for labels, value in snapshot.get(metric.name, []):
        pairs = [
            f'{name}="{_quotable(label)}"'
            for name, label in zip(metric.labels, labels, strict=True)
        ]
        yield from _samples(metric, pairs, value)


def _samples(metric: Metric, pairs: Sequence[str], value: Value) -> Iterator[str]:
    if not isinstance(value, Sequence):
        yield _sample(metric.name, pairs, value)
        return
    *counts, total = value
    bounds = (*(f"{bound:g}" for bound in metric.bounds), "+Inf")
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        yield _sample(f"{metric.name}_bucket", [*pairs, f'le="{bound}"'], count)
    yield _sample(f"{metric.name}_sum", pairs, total)
    yield _sample(f"{metric.name}_count", pairs, sum(counts))


def _sample(name: str, pairs: Sequence[str], value: float) -> str:
    labels = f"{{{','.join(pairs)}}}" if pairs else ""
    return f"{name}{labels} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quotable(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
