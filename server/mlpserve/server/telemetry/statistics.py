"""Statistics of models, and of how their shadows compare: what a snapshot has beside the metrics.

A snapshot carries counts of each kind as the list of their fields, and adds them up one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add, attrgetter
from typing import Final, NamedTuple, TypeVar

from mlpserve.model.folder import VersionKey
from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, Value

# Callers choose how many images a batch has. Each size with counts of its own would let them make a
# snapshot as large as they like.
_MAX_EXACT_SIZE: Final = 64


def size_class(images: int) -> int:
    """Return under which size passes over so many images are counted: that, or a power of two.

    Sizes up to 64 are counted each, others under the next power of two.
    """
    return images if images <= _MAX_EXACT_SIZE else 1 << (images - 1).bit_length()


@dataclass(slots=True)
class BatchCounts:
    """Passes of a network over alike numbers of images, and the requests in them.

    Attributes:
        batches: How many passes there were.
        images: Over how many images they went.
        requests: How many requests they answered.
        latency_ns: What the requests took together, from their arrival to their answer.
        queue_ns: How long they waited together for their turn.
        decode_ns: What it took to read them.
        compute_ns: What the passes took.
        reply_ns: What it took to hand the answers of each pass on, and to write them with it.
        compute_ns_by_request: As ``compute_ns``, but each pass counts once for each request in it.
        reply_ns_by_request: The same of ``reply_ns``.
    """

    batches: int = 0
    images: int = 0
    requests: int = 0
    latency_ns: int = 0
    queue_ns: int = 0
    decode_ns: int = 0
    compute_ns: int = 0
    reply_ns: int = 0
    compute_ns_by_request: int = 0
    reply_ns_by_request: int = 0

    def values(self) -> tuple[int, ...]:
        """Return the fields in their order."""
        return _values_of(self)


_values_of: Callable[[BatchCounts], tuple[int, ...]] = attrgetter(*BatchCounts.__slots__)


class FailureCounts(NamedTuple):
    """Requests that were refused, dropped or failed, and how long they took together."""

    requests: int = 0
    ns: int = 0


class ShadowPair(NamedTuple):
    """Two versions of a model that are compared: one whose answers are given, and its shadow."""

    name: str
    answering: int
    shadow: int


class ShadowCounts(NamedTuple):
    """Images that a version answered, by what became of them in its shadow.

    Attributes:
        compared: So many the shadow classified too.
        agreeing: So many of these it gave the same class.
        dropped: So many were left out, for want of time.
        failed: So many the shadow could not classify.
    """

    compared: int = 0
    agreeing: int = 0
    dropped: int = 0
    failed: int = 0


_Counts = TypeVar("_Counts", FailureCounts, ShadowCounts)


def added(one: _Counts, other: _Counts) -> _Counts:
    """Return the sums of the fields."""
    return type(one)._make(map(add, one, other))


@dataclass
class ModelStatistics:
    """Statistics of one version of a model.

    Attributes:
        failed: Its requests that were refused, dropped or failed.
        last_batch_ms: When its last pass ended; milliseconds since 1970, 0 where there was none.
        by_size: Its passes, by ``size_class`` of the number of images in each.
    """

    failed: FailureCounts = field(default_factory=FailureCounts)
    last_batch_ms: int = 0
    by_size: dict[int, BatchCounts] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Return how many images were classified."""
        return sum(counts.images for counts in self.by_size.values())

    @property
    def all(self) -> BatchCounts:
        """Return the sums over all passes."""
        columns = zip(*(counts.values() for counts in self.by_size.values()), strict=True)
        return BatchCounts(*map(sum, columns))


def model_statistics(snapshot: MetricsSnapshot) -> dict[VersionKey, ModelStatistics]:
    """Return the statistics that a snapshot carries, of each version that has any."""
    found: dict[VersionKey, ModelStatistics] = {}

    def of(name: str, version: str) -> ModelStatistics:
        return found.setdefault(VersionKey(name, int(version)), ModelStatistics())

    for (name, version, size), value in snapshot.get(metrics.BATCH_COUNTS.name, ()):
        of(name, version).by_size[int(size)] = BatchCounts(*_counts(value))
    for (name, version), value in snapshot.get(metrics.FAILURE_COUNTS.name, ()):
        of(name, version).failed = FailureCounts._make(_counts(value))
    for (name, version), value in snapshot.get(metrics.LAST_BATCH.name, ()):
        (of(name, version).last_batch_ms,) = _counts(value)
    return found


def shadow_counts(snapshot: MetricsSnapshot) -> Mapping[ShadowPair, ShadowCounts]:
    """Return how the shadows compare that a snapshot knows of."""
    return {
        ShadowPair(name, int(answering), int(shadow)): ShadowCounts._make(_counts(value))
        for (name, answering, shadow), value in snapshot.get(metrics.SHADOW_COUNTS.name, ())
    }


def _counts(value: Value) -> list[int]:
    return [int(each) for each in (value if isinstance(value, Sequence) else [value])]
