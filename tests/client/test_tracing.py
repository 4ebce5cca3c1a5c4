"""Calls belong to the trace of the span that is current, in programs that trace."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import grpc
import numpy as np
import pytest
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.textmap import CarrierT, Setter, TextMapPropagator, default_setter
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

from mlpserve.client import Client
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2

IMAGES = np.zeros((5, 6), np.uint8)


class Received:
    """A server's answers, and the traceparents that the calls carried."""

    def __init__(self) -> None:
        self.traceparents: list[object] = []
        self.keys: set[str] = set()

    def note(self, context: grpc.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata())
        self.keys |= metadata.keys()
        self.traceparents.append(metadata.get("traceparent"))

    def predict(
        self, request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        self.note(context)
        count = request.images.count
        return prediction_pb2.PredictResponse(
            model_name="tiny",
            model_version=1,
            probabilities=np.ones(count, "<f4").tobytes(),
            labels=bytes(4 * count),
        )

    def predict_stream(
        self, _: Iterator[prediction_pb2.PredictStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[prediction_pb2.PredictStreamResponse]:
        self.note(context)
        return iter(())

    def get_model(
        self, _: prediction_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.GetModelResponse:
        self.note(context)
        return prediction_pb2.GetModelResponse(model=prediction_pb2.Model(name="tiny"))

    def list_models(
        self, _: prediction_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.ListModelsResponse:
        self.note(context)
        return prediction_pb2.ListModelsResponse()


@pytest.fixture
def received() -> Received:
    return Received()


@pytest.fixture
def client(received: Received, serve: Callable[..., str]) -> Iterator[Client]:
    target = serve(
        Predict=received.predict,
        PredictStream=received.predict_stream,
        GetModel=received.get_model,
        ListModels=received.list_models,
    )
    with Client(target, token="secret") as opened:  # noqa: S106 - of nothing
        yield opened


@pytest.fixture
def tracer() -> Tracer:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    assert isinstance(tracer, Tracer)
    return tracer


def call_all(client: Client) -> None:
    client.predict(IMAGES, max_images_per_request=2)
    list(client.predict_stream([]))
    client.model()
    client.models()


def test_all_calls_carry_the_current_span(
    client: Client, received: Received, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("job") as span:
        call_all(client)
    context = span.get_span_context()
    expected = f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-"
    assert len(received.traceparents) == 6
    for found in received.traceparents:
        assert str(found).startswith(expected)
    assert "authorization" in received.keys


def test_calls_outside_of_spans_carry_none(client: Client, received: Received) -> None:
    call_all(client)
    assert received.traceparents == [None] * 6


class OtherForm(TextMapPropagator):
    """Sends a header whose name gRPC would not take as it is."""

    def extract(self, carrier: object, context: object = None, getter: object = None) -> None:  # type: ignore[override] # not called
        raise NotImplementedError

    def inject(
        self,
        carrier: CarrierT,
        context: object = None,  # noqa: ARG002 - as OpenTelemetry calls it
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        setter.set(carrier, "X-B3-TraceId", "80f198ee56343ba864fe8b2a57d3eff7")

    @property
    def fields(self) -> set[str]:
        return {"X-B3-TraceId"}


def test_the_form_is_the_one_that_opentelemetry_is_set_to(
    client: Client, received: Received, tracer: Tracer
) -> None:
    usual = get_global_textmap()
    set_global_textmap(OtherForm())
    try:
        with tracer.start_as_current_span("job"):
            client.models()
    finally:
        set_global_textmap(usual)
    assert "x-b3-traceid" in received.keys


def without_opentelemetry(server: Server) -> Sequence[str]:
    program = (
        "import sys\n"
        "from mlpserve.client import Client\n"
        f"with Client({server.address!r}) as client: client.models()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    return [sys.executable, "-c", program]


def test_a_program_that_does_not_trace_imports_nothing_for_it(server: Server) -> None:
    done = subprocess.run(
        without_opentelemetry(server), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
