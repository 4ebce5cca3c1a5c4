"""Spans of requests, as a collector of OpenTelemetry receives them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from queue import SimpleQueue

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import TracerProvider

from mlpserve.client import Client
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 60.0
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

Received = SimpleQueue[trace_service_pb2.ExportTraceServiceRequest]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received = Received()

    def Export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - as gRPC calls it
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.received.put(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, count: int) -> list[trace_pb2.Span]:
        """Wait for so many spans."""
        found: list[trace_pb2.Span] = []
        while len(found) < count:
            resources = self.received.get(timeout=TIMEOUT_S).resource_spans
            scopes = chain.from_iterable(resource.scope_spans for resource in resources)
            found += chain.from_iterable(scope.spans for scope in scopes)
        return found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Return a collector, to which all that is traced is sent."""
    running = grpc.server(ThreadPoolExecutor(2))
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, running)  # type: ignore[no-untyped-call] # generated
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield collector
    running.stop(None)


@pytest.fixture
def stub(
    collector: Collector, start_server: Callable[..., Server]
) -> Iterator[prediction_pb2_grpc.PredictionServiceStub]:
    with grpc.insecure_channel(start_server(tracing=True).address) as channel:
        yield prediction_pb2_grpc.PredictionServiceStub(channel)


IMAGE = prediction_pb2.ImageBatch(count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6))


def test_a_request_is_traced_with_its_queue_and_compute_under_the_callers_span(
    collector: Collector, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    stub.Predict(
        prediction_pb2.PredictRequest(images=IMAGE),
        timeout=TIMEOUT_S,
        metadata=(("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),),
    )
    spans = {span.name: span for span in collector.spans(3)}
    request = spans["Predict"]
    assert request.parent_span_id.hex() == PARENT_ID
    assert attributes(request)["mlpserve.model"] == "tiny"
    queue, compute = spans["queue"], spans["compute"]
    for span in spans.values():
        assert span.trace_id.hex() == TRACE_ID
    for part in (queue, compute):
        assert part.parent_span_id == request.span_id
    assert request.start_time_unix_nano == queue.start_time_unix_nano
    assert queue.end_time_unix_nano == compute.start_time_unix_nano
    assert compute.end_time_unix_nano <= request.end_time_unix_nano


def test_a_request_of_our_client_is_traced_under_the_span_that_is_current_there(
    collector: Collector, start_server: Callable[..., Server]
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    server = start_server(tracing=True)
    with tracer.start_as_current_span("job") as job, Client(server.address) as client:
        client.predict(np.zeros((1, 6), np.uint8))
    request = next(span for span in collector.spans(3) if span.name == "Predict")
    assert int.from_bytes(request.trace_id) == job.get_span_context().trace_id
    assert int.from_bytes(request.parent_span_id) == job.get_span_context().span_id


def test_a_caller_that_does_not_trace_and_one_that_sends_nonsense_get_traces_of_their_own(
    collector: Collector, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    for metadata in ((), (("traceparent", "00-nonsense"),)):
        stub.Predict(
            prediction_pb2.PredictRequest(images=IMAGE), timeout=TIMEOUT_S, metadata=metadata
        )
    spans = collector.spans(6)
    assert len({span.trace_id for span in spans}) == 2
    assert sum(not span.parent_span_id for span in spans) == 2


def test_a_caller_that_wants_no_trace_gets_none(
    collector: Collector, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    for flag in ("00", "01"):
        stub.Predict(
            prediction_pb2.PredictRequest(images=IMAGE),
            timeout=TIMEOUT_S,
            metadata=(("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-{flag}"),),
        )
    assert len(collector.spans(3)) == 3
    assert collector.received.empty()


def test_a_refused_request_is_traced_with_its_code(
    collector: Collector, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    with pytest.raises(grpc.RpcError):
        stub.Predict(prediction_pb2.PredictRequest(), timeout=TIMEOUT_S)
    (span,) = collector.spans(1)
    assert attributes(span)["mlpserve.code"] == "INVALID_ARGUMENT"


def attributes(span: trace_pb2.Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def test_a_server_whose_collector_is_away_answers_and_ends(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    server = start_server(tracing=True)
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(prediction_pb2.PredictRequest(images=IMAGE), timeout=TIMEOUT_S)
    server.stop()


def test_a_server_that_does_not_trace_imports_nothing_for_it() -> None:
    program = "import sys, mlpserve.server.server; print('opentelemetry' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
