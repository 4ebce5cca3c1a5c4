"""The figures of models in a snapshot: what goes in comes out, and processes add up."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.folder import VersionKey
from mlpserve.model.weights import Model
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.oip.figures import figures_of, statistics_snapshot
from mlpserve.server.telemetry.request_record import BatchTiming
from mlpserve.server.telemetry.snapshots import merged
from mlpserve.server.telemetry.statistics import Figures, Statistics

TIMES = st.integers(0, 10**15)
PASSAGES = st.builds(
    BatchTiming,
    requests=st.integers(1, 40),
    images=st.integers(1, 8192),
    arrived_ns=TIMES,
    read_ns=TIMES,
    started_ns=TIMES,
    ended_ns=TIMES,
)


@pytest.fixture(scope="module")
def compiled(model: Model) -> CompiledModel:
    return CompiledModel(model)


def recorded(model: CompiledModel, passages: list[BatchTiming]) -> Statistics:
    statistics = Statistics()
    for passage in passages:
        statistics.passed(model, passage)
        statistics.replied(model, passage, ns=passage.images)
        statistics.failed(model, requests=1, ns=passage.requests)
    return statistics


@given(here=st.lists(PASSAGES, min_size=1, max_size=8), there=st.lists(PASSAGES, max_size=8))
def test_processes_that_tell_their_figures_as_json_add_up_to_one_that_did_it_all(
    compiled: CompiledModel, here: list[BatchTiming], there: list[BatchTiming]
) -> None:
    told = [
        json.loads(json.dumps(statistics_snapshot(recorded(compiled, passages))))
        for passages in (here, there)
    ]
    key = VersionKey(compiled.metadata.name, compiled.metadata.version)
    (together,) = figures_of(merged(told)).items()
    ((_, alone),) = recorded(compiled, here + there).figures()
    found = together[1]
    found.last_pass_ms = alone.last_pass_ms  # the moment of the test
    assert together == (key, alone)


def test_a_snapshot_of_no_figures_has_none() -> None:
    assert figures_of({}) == {}
    assert figures_of(statistics_snapshot(Statistics())) == {}
    assert Figures().images == 0
