"""Late calls: those whose request does not come, of the fast lane and of all other methods."""

import time
from threading import Event, Thread
from typing import Final, Protocol

from mlpserve.server.errors import ExpiredError
from mlpserve.server.system.threads import end_process_with

ARRIVAL_TIMEOUT_S: Final = 60.0  # as for bodies over HTTP
_LOOK_PERIOD_S: Final = 1.0


class ArrivingCall(Protocol):
    """A call whose request has not come yet."""

    def refuse_late(self, error: ExpiredError) -> None:
        """End the call, whose request does not come any more. Never raises."""


class LateCalls:
    """Ends calls whose requests do not come in time: those of the fast lane and all others.

    Safe to use from many threads. There is no lock, because each step is one of a dictionary, and
    it would cost each call half a microsecond. The loop of the fast lane calls ``end_overdue`` at
    times; where there is none, ``start`` has a thread do so.
    """

    def __init__(self) -> None:
        self._is_over = Event()
        self._arriving: dict[ArrivingCall, float] = {}  # since when; the one that began first first

    def start(self) -> None:
        """Have a thread end late calls, until ``close``."""
        thread = Thread(target=self._end_again_and_again, name="arrival", daemon=True)
        end_process_with(thread)
        thread.start()

    def close(self) -> None:
        """End no more calls in a thread."""
        self._is_over.set()

    def add(self, call: ArrivingCall) -> None:
        """Expect the request of a call from now on."""
        self._arriving[call] = time.monotonic()

    def discard(self, call: ArrivingCall) -> bool:
        """Expect nothing any more; return whether something was expected."""
        return self._arriving.pop(call, None) is not None

    def end_overdue(self) -> None:
        """End the calls that are late by now. Never raises."""
        while self._arriving:
            try:
                call, since_s = next(iter(self._arriving.items()))
            except (StopIteration, RuntimeError):  # another thread has just changed it
                return
            if time.monotonic() - since_s < ARRIVAL_TIMEOUT_S:
                return
            if not self.discard(call):
                continue
            error = ExpiredError(f"the request did not arrive in {ARRIVAL_TIMEOUT_S:g} s")
            call.refuse_late(error)

    def _end_again_and_again(self) -> None:
        while not self._is_over.wait(_LOOK_PERIOD_S):
            self.end_overdue()
