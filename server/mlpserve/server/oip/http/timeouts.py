"""Connections over HTTP that do not ask: waited for no longer than this, and not more than these.

uvicorn itself waits without end for the first request of a connection, and for one that has begun.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

# A connection holds no thread, but its request does, and up to a body of memory.
MAX_CONNECTIONS: Final = 256
_HEAD_TIMEOUT_S: Final = 10.0  # for all that is before the body of a request
_ANSWER_TIMEOUT_S: Final = 60.0  # to take an answer that the system's buffers do not hold


class TimeoutProtocol(H11Protocol):
    """A connection that is closed where it keeps the server waiting for too long.

    Where there are too many, the one goes that has kept it waiting for longest.
    """

    cycle: Any  # None before the first request, which uvicorn's types do not say
    _waiting_since_s = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Wait for a request, and make room where that is one connection too many."""
        super().connection_made(transport)
        self._wait(_HEAD_TIMEOUT_S)
        if len(self.connections) >= MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def on_response_complete(self) -> None:
        """Wait until the answer is taken, and for the next request."""
        unsent_bytes = self.transport.get_write_buffer_size()
        self._wait(_ANSWER_TIMEOUT_S if unsent_bytes else _HEAD_TIMEOUT_S)
        super().on_response_complete()

    def _wait(self, most_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting_since_s = self.loop.time()
        self._timer = self.loop.call_later(most_s, self._give_up)

    def _give_up(self) -> None:
        if self._is_waiting():
            self.transport.abort()

    def _is_waiting(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _make_room(self) -> None:
        others = [
            other
            for other in self.connections
            if isinstance(other, TimeoutProtocol) and other is not self and other._is_waiting()  # noqa: SLF001 - of this class
        ]
        if others:
            longest = min(others, key=lambda other: other._waiting_since_s)  # noqa: SLF001 - as above
            self.connections.discard(longest)  # its loss is told later, and others may come before
            longest.transport.abort()
