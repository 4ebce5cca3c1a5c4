"""Who waits for the answer of a call of the public gRPC API, and for how long."""

from time import monotonic

import grpc

from mlpserve.server.telemetry.request_record import Metadata


class Caller:
    """The caller of a call that has just come. Safe to use from many threads.

    gRPC tells the deadline by the wall clock, which may be set while the call is open. So it is
    asked once, and kept by a clock that only runs on.

    Args:
        context: The call's.

    Attributes:
        metadata: What it sent along: pairs of a key and a value.
        connection: Over which connection it asks.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self._deadline_s = monotonic() + context.time_remaining()
        self.metadata: Metadata = context.invocation_metadata()
        self.connection: str = context.peer()

    def remaining_s(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadline_s - monotonic()

    def is_waiting(self) -> bool:
        """Return whether it still waits."""
        return self._context.is_active() and self.remaining_s() > 0
