"""Recorder of requests: follows each from its arrival to its end, and has it counted and traced."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from mlpserve.server.telemetry.counters import Counters, Version
from mlpserve.server.telemetry.request_record import BatchTiming, Metadata, RequestRecord

Clock: TypeAlias = Callable[[], int]


class Tracer(Protocol):
    """Tracer of requests: passes on how they went."""

    def trace(self, record: RequestRecord, code: str, ended_ns: int) -> None:
        """Pass on a request that has ended; called in the thread that answers. Never raises."""

    def close(self) -> None:
        """Pass on what was not passed on yet."""


class Recorder:
    """Recorder of the requests of one adapter.

    Args:
        counters: Those of the threads that use the recorder.
        tracer: Is told of each request, where there is one.
        clock: Gives nanoseconds; only differences count.

    Attributes:
        clock: As above.
        counters: As above.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        tracer: Tracer | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.clock = clock
        self.counters = counters
        self._tracer = tracer

    def arrived(
        self,
        method: str,
        metadata: Metadata | None,
        *,
        caller: str | bytes = "",
        remaining_s: float = math.inf,
    ) -> RequestRecord:
        """Return the record of a request that comes now; see ``RequestRecord``."""
        return RequestRecord(
            method,
            metadata or (),
            arrived_ns=self.clock(),
            caller=caller,
            remaining_s=remaining_s,
        )

    def received(self, record: RequestRecord) -> None:
        """Note that the whole of a request has come only now, because its caller took that long."""
        record.arrived_ns = self.clock()

    def read(self, record: RequestRecord, model: str, version: int) -> None:
        """Note that a request was read, and which version of which model it asks."""
        record.model = model
        record.version = version
        record.read_ns = self.clock()

    def computed(
        self, model: Version, records: Sequence[RequestRecord], timing: BatchTiming
    ) -> None:
        """Note that a version's network ran for requests together, before they are answered."""
        for record in records:
            record.started_ns = timing.started_ns
            record.computed_ns = timing.ended_ns
        self.counters.add_batch(model, timing)

    def replied(self, model: Version, timing: BatchTiming) -> None:
        """Note that the answers of a pass, that was noted, have been handed on."""
        self.counters.add_replies(model, timing, ns=self.clock() - timing.ended_ns)

    def answered(self, record: RequestRecord) -> None:
        """Note that a request was answered, by a network."""
        ended_ns = self.clock()
        self.counters.add_answered(record, ended_ns)
        if self._tracer is not None:
            self._tracer.trace(record, "OK", ended_ns)

    def ended(self, record: RequestRecord, code: str) -> None:
        """Note that a request was refused or has failed, or that it needed no network.

        Args:
            record: The request.
            code: The name of its status.
        """
        self.counters.add_call(record.method, code, model=record.model, version=record.version)
        if self._tracer is not None:
            self._tracer.trace(record, code, self.clock())
