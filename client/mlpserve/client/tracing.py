"""To which trace a call belongs: that of the span that is current in a program which traces.

Makes no spans of its own, and imports nothing for a program that does not use OpenTelemetry.
"""

import sys
from typing import Final

_API: Final = "opentelemetry.trace"


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Return what tells the server which span is current: ``traceparent``, as the W3C has it.

    What else is sent along, or in which other form, is set by OpenTelemetry's own OTEL_PROPAGATORS.
    Empty where no span is current.
    """
    if _API not in sys.modules:  # then there is no span, and to import it would take a while
        return ()
    from opentelemetry import propagate, trace  # noqa: PLC0415 - only where the program has it

    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((key.lower(), value) for key, value in carrier.items())  # gRPC's keys are so
