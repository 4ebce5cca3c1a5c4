"""What a process has counted, at one moment: plain data, that JSON can carry, and adds up."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from mlpserve.server.telemetry.metrics.catalog import METRICS, TOLD_OTHERWISE, Metric

# A number; of a histogram, how many values each bucket has, and last the sum of all values.
Value: TypeAlias = float | Sequence[float]
# Label values, and the value that a metric has with these.
Series: TypeAlias = Sequence[tuple[list[str], Value]]
MetricsSnapshot: TypeAlias = Mapping[str, Series]  # by the metric's name

_METRICS: Final[Mapping[str, Metric]] = {
    metric.name: metric for metric in (*METRICS, *TOLD_OTHERWISE)
}


def merged(snapshots: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """Return one snapshot for several: counters and histograms added up, and most gauges.

    Metrics that are not in the catalog are left out: a process of another release may know more.
    """
    found: dict[str, dict[tuple[str, ...], Value]] = {}
    for snapshot in snapshots:
        for name, series in snapshot.items():
            if name in _METRICS:
                _add(found.setdefault(name, {}), series, is_alike=_METRICS[name].is_alike)
    return {
        name: [(list(labels), value) for labels, value in series.items()]
        for name, series in found.items()
    }


def of_the_past(snapshot: MetricsSnapshot) -> MetricsSnapshot:
    """Return what stays true of a process that is gone: all but its gauges."""
    return {
        name: series
        for name, series in snapshot.items()
        if name in _METRICS and _METRICS[name].kind != "gauge"
    }


def _add(
    found: dict[tuple[str, ...], Value],
    series: Series,
    *,
    is_alike: bool,
) -> None:
    for labels, value in series:
        key = tuple(labels)
        found[key] = _sum(found[key], value, is_alike=is_alike) if key in found else value


def _sum(one: Value, other: Value, *, is_alike: bool) -> Value:
    if isinstance(one, Sequence) and isinstance(other, Sequence):
        return [mine + theirs for mine, theirs in zip(one, other, strict=True)]
    if isinstance(one, Sequence) or isinstance(other, Sequence):
        raise TypeError(f"expected two numbers or two histograms, got {one} and {other}")
    return max(one, other) if is_alike else one + other
