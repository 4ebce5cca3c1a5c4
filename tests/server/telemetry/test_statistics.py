"""Statistics in a snapshot: what was counted comes out, and processes add up."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.weights import Model
from mlpserve.server.telemetry.counters import Counters, SharedCounters
from mlpserve.server.telemetry.request_record import BatchTiming
from mlpserve.server.telemetry.snapshots import Aggregate, MetricsSnapshot, merged
from mlpserve.server.telemetry.statistics import (
    BatchCounts,
    FailureCounts,
    ModelStatistics,
    ShadowCounts,
    ShadowPair,
    model_statistics,
    shadow_counts,
)

TIMES = st.integers(0, 10**15)
TIMINGS = st.builds(
    BatchTiming,
    requests=st.integers(1, 40),
    images=st.integers(1, 8192),
    arrived_ns=TIMES,
    read_ns=TIMES,
    started_ns=TIMES,
    ended_ns=TIMES,
)
PAIR = ShadowPair("digits", 1, 2)


@pytest.fixture(scope="module")
def compiled(model: Model) -> CompiledModel:
    return CompiledModel(model)


def recorded(
    model: CompiledModel, timings: Sequence[BatchTiming], counters: Counters | None = None
) -> MetricsSnapshot:
    counters = counters or Counters()
    for timing in timings:
        counters.add_batch(model, timing)
        counters.add_replies(model, timing, ns=timing.images)
        counters.add_failed(model, requests=1, ns=timing.requests)
    return counters.snapshot()


def as_json(snapshot: MetricsSnapshot) -> MetricsSnapshot:
    carried: MetricsSnapshot = json.loads(json.dumps(snapshot))
    return carried


@given(here=st.lists(TIMINGS, min_size=1, max_size=8), there=st.lists(TIMINGS, max_size=8))
def test_processes_that_tell_their_statistics_as_json_add_up_to_one_that_did_it_all(
    compiled: CompiledModel, here: list[BatchTiming], there: list[BatchTiming]
) -> None:
    told = [as_json(recorded(compiled, timings)) for timings in (here, there)]
    ((key, together),) = model_statistics(merged(told)).items()
    ((_, alone),) = model_statistics(recorded(compiled, here + there, SharedCounters())).items()
    together.last_batch_ms = alone.last_batch_ms  # the moment of the test
    assert key == (compiled.metadata.name, compiled.metadata.version)
    assert together == alone
    timings = here + there
    assert together.images == sum(timing.images for timing in timings)
    assert together.failed == (len(timings), sum(timing.requests for timing in timings))
    assert together.all.requests == sum(timing.requests for timing in timings)


def test_what_passes_took_is_counted_for_each_pass_and_for_each_request_in_it(
    compiled: CompiledModel,
) -> None:
    # Three requests that arrived at 1, 2 and 3, were read at 11, 12 and 13, and ran from 20 to 50.
    three = BatchTiming(3, 7, arrived_ns=6, read_ns=36, started_ns=20, ended_ns=50)
    alone = BatchTiming(1, 7, arrived_ns=60, read_ns=65, started_ns=70, ended_ns=100)
    (found,) = model_statistics(recorded(compiled, [three, alone])).values()
    assert found.last_batch_ms > 0
    found.last_batch_ms = 0
    assert found == ModelStatistics(
        failed=FailureCounts(requests=2, ns=3 + 1),
        by_size={
            7: BatchCounts(
                batches=2,
                images=14,
                requests=4,
                latency_ns=(49 + 48 + 47 + 3 * 7) + (40 + 7),
                queue_ns=(9 + 8 + 7) + 5,
                decode_ns=30 + 5,
                compute_ns=30 + 30,
                reply_ns=7 + 7,
                compute_ns_by_request=3 * 30 + 30,
                reply_ns_by_request=3 * 7 + 7,
            )
        },
    )


def test_callers_choose_sizes_and_not_how_many_series_there_are(compiled: CompiledModel) -> None:
    sizes = range(1, 8193)
    snapshot = recorded(compiled, [BatchTiming(1, size, 0, 0, 0, 0) for size in sizes])
    (found,) = model_statistics(snapshot).values()
    assert [*found.by_size] == [*range(1, 65), 128, 256, 512, 1024, 2048, 4096, 8192]
    assert found.images == sum(sizes)
    assert found.by_size[128].batches == found.by_size[128].requests == 64
    assert sum(map(len, snapshot.values())) < 100


def test_a_snapshot_takes_no_lock_that_a_request_needs(compiled: CompiledModel) -> None:
    counters = SharedCounters()
    recorded(compiled, [BatchTiming(1, 1, 0, 0, 0, 0)], counters)
    with counters.lock:  # the test's limit of time ends it otherwise
        assert model_statistics(counters.snapshot())


def test_a_snapshot_without_statistics_has_none() -> None:
    assert model_statistics({}) == model_statistics(Counters().snapshot()) == {}
    assert shadow_counts({}) == shadow_counts(Counters().snapshot()) == {}
    assert ModelStatistics().images == 0


def test_what_several_processes_compare_is_added_up_and_outlives_them() -> None:
    processes = {name: Counters() for name in ("one", "other")}
    aggregate = Aggregate(
        lambda: {name: as_json(counters.snapshot()) for name, counters in processes.items()}
    )
    for counters in processes.values():
        counters.add_shadow(PAIR, ShadowCounts(compared=10, agreeing=9))
    assert shadow_counts(aggregate.snapshot()) == {PAIR: ShadowCounts(compared=20, agreeing=18)}
    del processes["one"]
    processes["third"] = Counters()
    processes["third"].add_shadow(PAIR, ShadowCounts(compared=10, failed=1))
    assert shadow_counts(aggregate.snapshot()) == {
        PAIR: ShadowCounts(compared=30, agreeing=18, failed=1)
    }


def test_pairs_are_counted_apart() -> None:
    counters = Counters()
    counted = {
        ShadowPair("digits", 1, number): ShadowCounts(compared=number, dropped=1)
        for number in range(100)
    }
    for _ in range(2):
        for pair, counts in counted.items():
            counters.add_shadow(pair, counts)
    assert shadow_counts(counters.snapshot()) == {
        pair: ShadowCounts(compared=2 * counts.compared, dropped=2)
        for pair, counts in counted.items()
    }
