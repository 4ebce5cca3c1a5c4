"""Follows requests from their arrival to their end, and counts them."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from mlpserve.server.metrics.counters import Counters
from mlpserve.server.metrics.records import Metadata, RequestRecord

Clock: TypeAlias = Callable[[], float]


class Tracer(Protocol):
    """Passes on how requests went."""

    def trace(self, record: RequestRecord, code: str, ended_s: float) -> None:
        """Pass on a request that has ended; called in the thread that answers. Never raises."""

    def close(self) -> None:
        """Pass on what was not passed on yet."""


class Recorder:
    """Records the requests of one adapter.

    Args:
        counters: Those of the threads that use the recorder.
        tracer: Is told of each request, where there is one.
        clock: Gives seconds; only differences count.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        tracer: Tracer | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.clock = clock
        self._counters = counters
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
            arrived_s=self.clock(),
            caller=caller,
            remaining_s=remaining_s,
        )

    def computed(self, records: Sequence[RequestRecord], *, rows: int, started_s: float) -> None:
        """Note that a network ran, from ``started_s`` until now, for requests together."""
        computed_s = self.clock()
        for record in records:
            record.started_s = started_s
            record.computed_s = computed_s
        self._counters.add_batch(records[0].model, rows)

    def answered(self, record: RequestRecord) -> None:
        """Note that a request was answered, by a network."""
        ended_s = self.clock()
        self._counters.add_answered(record, ended_s)
        if self._tracer is not None:
            self._tracer.trace(record, "OK", ended_s)

    def ended(self, record: RequestRecord, code: str) -> None:
        """Note that a request was refused or has failed, or that it needed no network.

        Args:
            record: The request.
            code: The name of its status.
        """
        self._counters.add_call(record.method, code, model=record.model, version=record.version)
        if self._tracer is not None:
            self._tracer.trace(record, code, self.clock())
