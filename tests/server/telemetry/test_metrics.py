"""Counters of requests on either adapter, and their sums."""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mlpserve.server.server import Server
from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.exposition import exposition
from mlpserve.server.telemetry.metrics import SECONDS
from mlpserve.server.telemetry.request_record import RequestRecord
from mlpserve.server.telemetry.snapshots import Aggregate, MetricsSnapshot, merged
from mlpserve.server.telemetry.statistics import ShadowCounts, ShadowPair
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

REPOSITORY = Path(__file__).parents[3]
TIMEOUT_S = 60.0

Page = dict[str, dict[tuple[tuple[str, str], ...], float]]


def page_of(snapshot: MetricsSnapshot) -> Page:
    """Return the samples by name and labels, as Prometheus's own library reads the page."""
    samples: Page = {}
    for family in text_string_to_metric_families(exposition(snapshot)):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def value(page: Page, name: str, **labels: str) -> float:
    """Return the sum of all samples of a name with these labels."""
    wanted = set(labels.items())
    return sum(found for key, found in page.get(name, {}).items() if wanted <= set(key))


@pytest.fixture
def stub(server: Server) -> Iterator[prediction_pb2_grpc.PredictionServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield prediction_pb2_grpc.PredictionServiceStub(channel)


def images(count: int) -> prediction_pb2.ImageBatch:
    return prediction_pb2.ImageBatch(
        count=count, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6 * count)
    )


def metrics_after(server: Server, requests: int) -> Page:
    """Return the page on which so many requests are counted: callers may be told before."""
    while True:  # the test's own limit of time ends it otherwise
        page = page_of(server.metrics("server"))
        if value(page, "mlpserve_requests_total") >= requests:
            return page


def test_answered_requests_are_counted_and_timed_by_method_model_and_version(
    server: Server, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    for count in (1, 2, 3):
        stub.Predict(prediction_pb2.PredictRequest(images=images(count)), timeout=TIMEOUT_S)
    old = prediction_pb2.PredictRequest(images=images(4), model_version=1)
    stub.Predict(old, timeout=TIMEOUT_S)
    stream = [prediction_pb2.PredictStreamRequest(images=images(5)) for _ in range(6)]
    assert len(list(stub.PredictStream(iter(stream), timeout=TIMEOUT_S))) == 6
    stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
    page = metrics_after(server, 11)
    assert page["mlpserve_requests_total"] == {
        labels(code="OK", method="ListModels", model="", version=""): 1,
        labels(code="OK", method="Predict", model="tiny", version="1"): 1,
        labels(code="OK", method="Predict", model="tiny", version="2"): 3,
        labels(code="OK", method="PredictStream", model="tiny", version="2"): 6,
    }
    assert value(page, "mlpserve_batch_rows_sum", model="tiny") == 1 + 2 + 3 + 4 + 6 * 5
    assert value(page, "mlpserve_batch_rows_bucket", le="+Inf") <= 10
    for name in ("request", "queue", "compute"):
        assert value(page, f"mlpserve_{name}_seconds_count", method="Predict", model="tiny") == 4
        assert value(page, f"mlpserve_{name}_seconds_count", method="PredictStream") == 6
    parts = value(page, "mlpserve_queue_seconds_sum") + value(page, "mlpserve_compute_seconds_sum")
    assert 0 < parts <= value(page, "mlpserve_request_seconds_sum") < TIMEOUT_S


def labels(**pairs: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(pairs.items()))


def test_refused_requests_are_counted_by_code_and_what_callers_invent_is_no_label(
    server: Server, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: stub.Predict(
            prediction_pb2.PredictRequest(images=images(1), model_name="invented")
        ),
        lambda: stub.Predict(prediction_pb2.PredictRequest(images=images(1), model_version=987654)),
        lambda: stub.Predict(prediction_pb2.PredictRequest(images=images(65))),
        lambda: stub.GetModel(prediction_pb2.GetModelRequest(model_name="invented")),
        lambda: list(stub.PredictStream(iter([prediction_pb2.PredictStreamRequest()]))),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError):
            call()
    page = metrics_after(server, len(calls))
    assert page["mlpserve_requests_total"] == {
        labels(code="NOT_FOUND", method="Predict", model="", version=""): 2,
        labels(code="INVALID_ARGUMENT", method="Predict", model="", version=""): 1,
        labels(code="NOT_FOUND", method="GetModel", model="", version=""): 1,
        labels(code="INVALID_ARGUMENT", method="PredictStream", model="", version=""): 1,
    }
    assert "mlpserve_request_seconds_count" not in page


def test_a_server_tells_what_it_uses(server: Server) -> None:
    page = page_of(server.metrics("worker-3"))
    assert value(page, "mlpserve_process_cpu_seconds_total", process="worker-3") > 0
    assert value(page, "mlpserve_process_resident_bytes", process="worker-3") > 1e6
    assert value(page, "mlpserve_process_open_descriptors", process="worker-3") > 3
    assert value(page, "mlpserve_process_threads", process="worker-3") > 1
    assert value(page, "mlpserve_queue_rows") == value(page, "mlpserve_queue_requests") == 0


def test_times_fall_into_the_buckets_that_prometheus_expects() -> None:
    counters = Counters()
    first_ns = round(SECONDS[0] * 1e9)
    for total_ns in (first_ns, first_ns + 1, 10**18):
        counters.add_answered(RequestRecord("Predict"), total_ns)
    found = page_of(counters.snapshot())["mlpserve_request_seconds_bucket"]
    in_order = sorted(found.items(), key=lambda item: float(dict(item[0])["le"]))
    assert [count for _, count in in_order] == [1, *[2] * (len(SECONDS) - 1), 3]


def test_shadow_rows_are_counted_by_whether_they_agree() -> None:
    counters = Counters()
    counters.add_shadow(ShadowPair("tiny", 1, 2), ShadowCounts(compared=5, agreeing=3))
    counters.add_shadow(ShadowPair("tiny", 3, 2), ShadowCounts(compared=1, agreeing=1, dropped=7))
    page = page_of(counters.snapshot())
    assert value(page, "mlpserve_shadow_rows_total", version="2", agrees="true") == 4
    assert value(page, "mlpserve_shadow_rows_total", version="2", agrees="false") == 2


def test_whatever_a_label_says_the_page_can_be_read() -> None:
    name = 'back\\slash "quoted"\nnewline'
    page = page_of({metrics.SERVED_VERSIONS.name: [([name], 2)]})
    assert page["mlpserve_served_versions"] == {(("model", name),): 2}


def test_the_document_has_the_table_of_all_metrics() -> None:
    document = (REPOSITORY / "docs" / "metrics.md").read_text()
    program = runpy.run_path(str(REPOSITORY / "docs" / "tables.py"))
    assert document == program["with_current_table"]("metrics.md"), "run `make tables`"


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Draw what happens to three processes: requests, scrapes, silence, death."""
    events = ["request", "scrape", "silence", "death"]
    return draw(st.lists(st.tuples(st.sampled_from(events), st.integers(0, 2)), max_size=30))


@given(lives())
def test_no_counter_falls_whoever_is_silent_or_dies(happens: list[tuple[str, int]]) -> None:
    processes = {slot: Counters() for slot in range(3)}
    generation = dict.fromkeys(range(3), 0)
    silent: set[int] = set()
    told, made = 0.0, 0

    def collect() -> dict[tuple[int, int], MetricsSnapshot | None]:
        return {
            (slot, generation[slot]): None if slot in silent else counters.snapshot()
            for slot, counters in processes.items()
        }

    aggregate = Aggregate(collect)
    for event, slot in happens:
        if event == "request":
            processes[slot].add_call("Predict", "OK")
            made += 1
        elif event == "silence":
            silent ^= {slot}
        elif event == "death":
            generation[slot] += 1
            processes[slot] = Counters()
        now = value(page_of(aggregate.snapshot()), "mlpserve_requests_total")
        assert told <= now <= made
        told = now
    if "silence" not in {event for event, _ in happens}:
        assert told == made  # it was asked after each request


def test_gauges_of_processes_add_up_unless_all_have_the_same() -> None:
    one: MetricsSnapshot = {
        metrics.QUEUE_ROWS.name: [([], 2)],
        metrics.GENERATION.name: [([], 7)],
        "mlpserve_of_another_release": [([], 1)],
    }
    assert merged([one, one]) == {
        metrics.QUEUE_ROWS.name: [([], 4)],
        metrics.GENERATION.name: [([], 7)],
    }
