"""Recorder of requests: follows each from its arrival to its end, and has it counted and traced."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from mlpserve.server.telemetry.counters import Counters, Version
from mlpserve.server.telemetry.request_log import RequestLog, request_id
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
        log: Logs requests that are refused or have failed.
        tracer: Is told of each request, where there is one.
        clock: Gives nanoseconds; only differences count.

    Attributes:
        clock: As above.
        counters: As above.
    """

    def __init__(
        self,
        counters: Counters,
        log: RequestLog | None = None,
        *,
        tracer: Tracer | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.clock = clock
        self.counters = counters
        self._log = RequestLog() if log is None else log
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

    def refused(self, record: RequestRecord, error: Exception, code: str, *, is_fault: bool) -> str:
        """Note that a request gets no answer, and log why.

        Args:
            record: The request.
            error: Why.
            code: The name of its status.
            is_fault: Whether that is a fault of ours, and not its caller's affair.

        Returns:
            The id by which the log knows it.
        """
        known_as = request_id(record.metadata)
        log = self._log.failed if is_fault else self._log.refused
        log(record.method, error, code=code, request_id=known_as)
        self.ended(record, code)
        return known_as

    def ended(self, record: RequestRecord, code: str) -> None:
        """Note that a request has ended in another way than by the answer of a network.

        Args:
            record: The request.
            code: The name of its status.
        """
        self.counters.add_call(record.method, code, model=record.model, version=record.version)
        if self._tracer is not None:
            self._tracer.trace(record, code, self.clock())
