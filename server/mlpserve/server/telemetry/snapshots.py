"""Snapshots of what processes have counted: plain data that JSON can carry, and that adds up."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Final, Generic, TypeAlias, TypeVar

from mlpserve.server.telemetry.metrics import INTERNAL, METRICS, Metric

# A number; of a histogram, how many values each bucket has, and last the sum of all values; of
# counts, their fields.
Value: TypeAlias = float | Sequence[float]
# Label values, and the value that a metric has with these.
Series: TypeAlias = Sequence[tuple[list[str], Value]]
MetricsSnapshot: TypeAlias = Mapping[str, Series]  # by the metric's name

_METRICS: Final[Mapping[str, Metric]] = {metric.name: metric for metric in (*METRICS, *INTERNAL)}

_Key = TypeVar("_Key", bound=Hashable)


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


class Aggregate(Generic[_Key]):
    """Sum of the snapshots of several processes, also of dead ones: no counter ever falls.

    Safe to use from many threads.

    Args:
        collect: Asks all processes, and returns what each has counted, under a key that no other
            process of this server has or had; None for one that lives but does not answer, which
            keeps what it had counted when it last did. One that is not among them is gone.
    """

    def __init__(self, collect: Callable[[], Mapping[_Key, MetricsSnapshot | None]]) -> None:
        self._collect = collect
        self._lock = Lock()
        self._asked = self._heard = 0  # how many times; only in between do the two differ
        self._last: dict[_Key, MetricsSnapshot] = {}
        self._retired: MetricsSnapshot = {}
        self._total: MetricsSnapshot = {}

    def snapshot(self) -> MetricsSnapshot:
        """Return what all of them have counted by now.

        Callers who come while the processes are asked share the answers of the next time: where one
        process hangs, none of them waits for more than two. What a process counts after it was last
        asked is lost with it.
        """
        asked = self._asked
        with self._lock:
            if self._heard <= asked:
                self._asked += 1
                self._total = self._ask()
                self._heard = self._asked
            return self._total

    def _ask(self) -> MetricsSnapshot:
        answers = self._collect()
        for key in self._last.keys() - answers.keys():
            self._retired = merged([self._retired, of_the_past(self._last.pop(key))])
        heard = {key: answer for key, answer in answers.items() if answer is not None}
        self._last.update(heard)
        silent = [of_the_past(last) for key, last in self._last.items() if key not in heard]
        return merged([self._retired, *silent, *heard.values()])


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
        raise TypeError(f"expected two numbers or two lists of them, got {one} and {other}")
    return max(one, other) if is_alike else one + other
