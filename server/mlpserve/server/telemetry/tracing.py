"""Spans of requests for OpenTelemetry, where tracing is asked for.

    Predict        the rpc, under the span of the caller's traceparent
    |-- queue      read, and waiting for its turn
    `-- compute    the network

The spans of a request are made when it has ended, from the times that metrics need as well. So a
server that is not asked to trace does nothing for it. Where the spans go is said by OpenTelemetry's
own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.
"""

import logging
import time
from collections.abc import Callable
from threading import Thread
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mlpserve.server.telemetry.request_record import Metadata, RequestRecord

logger = logging.getLogger(__name__)

_FAULTS: Final = ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED")  # those that are not the caller's
_PARENT_KEYS: Final = ("traceparent", "tracestate")
_LAST_SPANS_S: Final = 2.0
_NS_PER_S: Final = 1e9


class SpanTracer:
    """Makes the spans of requests, and has them sent by a thread of its own.

    Safe to use from many threads.

    Args:
        wall_ns: Gives the time of day in nanoseconds since 1970.
    """

    def __init__(self, *, wall_ns: Callable[[], int] = time.time_ns) -> None:
        resource = Resource({"service.name": "mlpserve"}).merge(OTELResourceDetector().detect())
        # Not at exit: there it would wait for a collector that may be away.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("mlpserve.server")
        self._wall_ns = wall_ns

    def trace(self, record: RequestRecord, code: str, ended_ns: int) -> None:
        """See ``Tracer.trace``; never raises."""
        try:
            self._trace(record, code, ended_ns)
        except Exception:  # a request is worth more than its trace
            logger.exception("a request could not be traced")

    def close(self) -> None:
        """Send what was not sent yet; where that takes long, it is lost."""
        closing = Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(_LAST_SPANS_S)

    def _trace(self, record: RequestRecord, code: str, ended_ns: int) -> None:
        now_ns = self._wall_ns()

        def at(moment_ns: int) -> int:
            return now_ns - (ended_ns - moment_ns)

        span = self._tracer.start_span(
            record.method,
            context=_parent(record.metadata),
            kind=SpanKind.SERVER,
            start_time=at(record.arrived_ns),
        )
        _describe(span, record, code)
        if record.computed_ns > record.started_ns:
            within = set_span_in_context(span)
            self._part("queue", within, at(record.arrived_ns), at(record.started_ns))
            self._part("compute", within, at(record.started_ns), at(record.computed_ns))
        span.end(now_ns)

    def _part(self, name: str, within: Context, started_ns: int, ended_ns: int) -> None:
        self._tracer.start_span(name, context=within, start_time=started_ns).end(ended_ns)


def _parent(metadata: Metadata) -> Context:
    """Return the context that the caller sent, as https://www.w3.org/TR/trace-context has it."""
    carrier = {key: str(value) for key, value in metadata if key in _PARENT_KEYS}
    return TraceContextTextMapPropagator().extract(carrier, context=Context())


def _describe(span: Span, record: RequestRecord, code: str) -> None:
    span.set_attributes(
        {
            "rpc.system": "grpc",
            "rpc.method": record.method,
            "mlpserve.code": code,
            "mlpserve.model": record.model,
            "mlpserve.version": record.version,
        }
    )
    if code in _FAULTS:
        span.set_status(StatusCode.ERROR, code)
