"""Limits of HTTP: how long connections, requests and answers may take, and how large bodies may be.

uvicorn itself waits without end for the first request of a connection, and for one that has begun.
"""

import asyncio
import ssl
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlpserve.server.errors import ExpiredError, RequestError, TooLargeError, UnsupportedError

# A connection holds no thread, but its request does, and up to a body of memory.
MAX_CONNECTIONS: Final = 256
# Over the limit for as long as it takes to close others, or while no other waits for its caller.
SPARE_CONNECTIONS: Final = 64
_HEAD_TIMEOUT_S: Final = 10.0  # for all that is before the body of a request
_ANSWER_TIMEOUT_S: Final = 60.0  # to take an answer that the system's buffers do not hold
_BODY_TIMEOUT_S: Final = 60.0
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS  # zlib's way to say: whichever the data begin with
_COMPRESSIONS: Final = ("gzip", "deflate")


class TimeoutProtocol(H11Protocol):
    """A connection that is closed where it keeps the server waiting for too long.

    Where there are too many, one goes of the address that has most: the one that has kept the
    server waiting for longest, first of those that send nothing, then of those whose request is
    under way. Both count from when a connection is accepted: asyncio would tell of one of TLS only
    after its handshake.

    Args:
        tls: Returns the context of a connection of TLS; None for plain ones.
        options: As of the base class.
    """

    cycle: Any  # None before the first request, which uvicorn's types do not say
    _waiting_since_s = 0.0
    _timer: asyncio.TimerHandle | None = None
    _handshake: asyncio.Task[None] | None = None
    _early: bytearray | None = None  # what came with the end of a handshake, until that is over

    def __init__(self, *, tls: Callable[[], ssl.SSLContext] | None, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(**options)
        self._tls = tls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Wait for a request, and make room where that is one connection too many."""
        super().connection_made(transport)
        self._wait(_HEAD_TIMEOUT_S)
        if len(self.connections) >= MAX_CONNECTIONS:
            self._make_room()
        if self._tls is not None:
            transport.pause_reading()  # or the first bytes would be taken for a request
            self._early = bytearray()
            self._handshake = self.loop.create_task(self._shake_hands(transport, self._tls()))

    async def _shake_hands(self, accepted: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            transport = await self.loop.start_tls(
                accepted,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=_HEAD_TIMEOUT_S,
                ssl_shutdown_timeout=_HEAD_TIMEOUT_S,
            )
        except OSError as error:  # ssl.SSLError and a handshake that takes too long are, too
            # What failed waits in a cycle with its frames, and with them 256 kB of TLS buffers.
            error.__traceback__ = None
            transport = None
        early, self._early = self._early, None
        if transport is None or transport.is_closing():
            accepted.abort()
            self.connection_lost(None)
            return
        super().connection_made(transport)
        if early:
            self.data_received(bytes(early))

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._early is None:
            super().data_received(data)
        else:
            self._early += data

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, where that may yet be said; a request under way is over."""
        request = self.cycle
        if request is not None and not request.response_complete:
            request.disconnected = True  # or its answer would come after this one
            request.message_event.set()
            if request.response_started:
                self.transport.close()
                return
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def on_response_complete(self) -> None:
        """Wait until the answer is taken, and for the next request."""
        unsent_bytes = self.transport.get_write_buffer_size()
        # An idle one is closed by uvicorn after the same time; this counts on while a head comes.
        next_head_s = max(self.timeout_keep_alive, _HEAD_TIMEOUT_S)
        self._wait(_ANSWER_TIMEOUT_S if unsent_bytes else next_head_s)
        super().on_response_complete()

    def _wait(self, max_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting_since_s = self.loop.time()
        self._timer = self.loop.call_later(max_s, self._give_up)

    def _give_up(self) -> None:
        if self._is_waiting():
            self.transport.abort()

    def _is_waiting(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _is_sending(self) -> bool:
        return self.cycle is not None and bool(self.cycle.more_body)

    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _make_room(self) -> None:
        others = [
            other
            for other in self.connections
            if isinstance(other, TimeoutProtocol) and other is not self
            if other._is_waiting() or other._is_sending()  # noqa: SLF001 - of this class
        ]
        if others:
            of_address = Counter(other._address() for other in others)  # noqa: SLF001 - as above

            def order(other: TimeoutProtocol) -> tuple[int, bool, float]:
                address, since_s = other._address(), other._waiting_since_s
                return -of_address[address], other._is_sending(), since_s

            goes = min(others, key=order)
            self.connections.discard(goes)  # its loss is told later, and others may come before
            goes.transport.abort()


async def received_body(request: Request, *, max_bytes: int) -> bytes:
    """Return a request's body, decompressed.

    Args:
        request: The request; its body has not been read yet.
        max_bytes: The most bytes that it may have, both as it is sent and decompressed.

    Raises:
        TooLargeError: It has more; what is beyond is not read.
        ExpiredError: It did not arrive in time.
        RequestError: It is not compressed as its headers say.
        UnsupportedError: It is compressed in a way that is not known here.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", *_COMPRESSIONS}:
        raise UnsupportedError(f"Content-Encoding: expected {' or '.join(_COMPRESSIONS)}")
    _check_length(request.headers.get("content-length", "0"), max_bytes)
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            body = await _read(request, max_bytes)
    except TimeoutError as error:
        raise ExpiredError(f"the body did not arrive in {_BODY_TIMEOUT_S:g} s") from error
    if encoding == "identity":
        return body
    return await run_in_threadpool(_decompressed, body, max_bytes)


async def _read(request: Request, max_bytes: int) -> bytes:
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(parts)


def _check_length(announced: str, max_bytes: int) -> None:
    # The ASGI server has refused what is no number.
    if len(announced) > len(str(max_bytes)) or int(announced) > max_bytes:
        raise _too_large(max_bytes)


def _decompressed(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError("body: it is not compressed as Content-Encoding says") from error
    if len(found) > max_bytes:
        raise _too_large(max_bytes)
    if not decompressor.eof:
        raise RequestError("body: it ends before its compressed data do")
    return found


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"body: expected at most {max_bytes} bytes, got more; send less at once")
