"""Sending of requests: each with a deadline and what authorizes it, several at once, and again.

What fails is raised as the client's own errors.
"""

import math
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import grpc

from mlpserve.client.arguments import authorization, checked_timeout_s
from mlpserve.client.channel import trace_metadata
from mlpserve.client.errors import ClientError, client_error, pushback_s
from mlpserve.client.hedging import Hedging
from mlpserve.client.proxies import described
from mlpserve.client.streams import StreamRequests
from mlpserve.client.transports import PREDICT_STREAM, Metadata, Pending, Transport

DEFAULT_TIMEOUT_S: Final = 30.0
# So many requests of one array are under way at once: one is computed while others travel. Of small
# ones, of which Python and not the network is the limit, twice as many keep the server busy.
_MAX_IN_FLIGHT: Final = 4
_MAX_SMALL_IN_FLIGHT: Final = 8
_SMALL_BYTES: Final = 128 * 1024

# As gRPC does it for other calls, see channel.py. It would try a stream again only before the first
# answer, and 1.85 loses a message of one now and then.
_RETRIED_STATUSES: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# With INTERNAL: what grpc.aio says where a request is sent in the moment in which a stream breaks.
_SENT_TOO_LATE: Final = "Internal error from Core"
_STREAM_PAUSES_S: Final = (0.1, 0.3, 0.9, 1.0)  # until there is an answer

ResultT = TypeVar("ResultT")


class Sender:
    """Sends the requests of a client, over either transport.

    Args:
        target: The server, as messages name it.
        transport: The way there.
        timeout_s: Seconds that a call may take.
        token: The bearer token that is sent along.
        hedge_after_s: After so long, a small call is made once more; None for never.

    Raises:
        InvalidRequestError: An argument is out of its range.
    """

    def __init__(
        self,
        target: str,
        transport: Transport,
        *,
        timeout_s: float | None,
        token: str | None,
        hedge_after_s: float | None,
    ) -> None:
        self.target = described(target)
        self.transport = transport
        self._timeout_s = DEFAULT_TIMEOUT_S if timeout_s is None else checked_timeout_s(timeout_s)
        self._authorization = authorization(token)
        # Without hedging not started and then waited for: that takes a hand-off between threads.
        self._ask_hedged = transport.ask
        if hedge_after_s is not None:
            after_s = checked_timeout_s(hedge_after_s, "hedge_after_s")
            self._ask_hedged = Hedging(transport, after_s).ask

    def allowed_s(self, timeout_s: float | None) -> float:
        """Return the seconds that a call may take: its own, or else the client's.

        Raises:
            InvalidRequestError: ``timeout_s`` is no number above 0.
        """
        return self._timeout_s if timeout_s is None else checked_timeout_s(timeout_s)

    def deadline_s(self, timeout_s: float | None) -> float:
        """Return when a call must be over that begins now, by the monotonic clock."""
        return time.monotonic() + self.allowed_s(timeout_s)

    async def ask(
        self, method: str, request: bytes, deadline_s: float, *, is_hedged: bool = False
    ) -> bytes:
        """Send a request, wait for its answer and return it."""
        ask = self._ask_hedged if is_hedged else self.transport.ask
        return await ask(method, request, remaining_s(deadline_s), self._metadata())

    async def call(self, method: str, request: bytes, timeout_s: float | None) -> bytes:
        """Make a call of one request; what fails is the client's own error."""
        with self.translated():
            return await self.ask(method, request, self.deadline_s(timeout_s))

    async def ask_several(
        self,
        method: str,
        requests: Iterable[tuple[int, bytes]],
        read: Callable[[bytes, int], ResultT],
        deadline_s: float,
    ) -> list[ResultT]:
        """Send requests about so many images, several at once, and return their answers in order.

        The next request is asked for when there is room for it under way.
        """
        found: list[ResultT] = []
        under_way: deque[tuple[int, Pending]] = deque()

        async def take_next() -> None:
            count, call = under_way.popleft()
            found.append(read(await call.answer(), count))

        try:
            for count, request in requests:
                allowed_s = remaining_s(deadline_s)
                call = self.transport.start(method, request, allowed_s, self._metadata())
                under_way.append((count, call))
                is_small = len(request) <= _SMALL_BYTES
                if len(under_way) >= (_MAX_SMALL_IN_FLIGHT if is_small else _MAX_IN_FLIGHT):
                    await take_next()
            while under_way:
                await take_next()
        finally:
            for _, call in under_way:
                call.cancel()
        return found

    async def stream(
        self, requests: StreamRequests, deadline_s: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the answers of a stream; where it breaks, go on after the last of them."""
        pauses = iter(_STREAM_PAUSES_S)
        while True:
            answers = self.transport.stream(
                PREDICT_STREAM, requests, remaining_s(deadline_s), self._metadata()
            )
            try:
                async for answer in answers:
                    pauses = iter(_STREAM_PAUSES_S)
                    yield answer
            except grpc.RpcError as error:
                pause_s = max(next(pauses, math.inf), pushback_s(error) or 0)
                if self.transport.is_closed or not _is_broken(error):
                    raise
                if pause_s >= remaining_s(deadline_s):
                    raise
            else:
                return
            finally:
                await answers.aclose()
            await self.transport.sleep(pause_s)
            requests.start_again()

    def _metadata(self) -> Metadata:
        """Return what is sent along with a call that is made now."""
        return self._authorization + trace_metadata()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise the client's own errors in place of gRPC's."""
        if self.transport.is_closed:
            raise ClientError(f"{self.target}: the client is closed")
        if self.transport.process not in (None, os.getpid()):
            raise ClientError(
                f"{self.target}: expected a call from the process that made the client, got one "
                "from a process that was forked from it; make a client in each process"
            )
        try:
            yield
        except ClientError:
            raise
        # Of several kinds, where the channel was closed.
        except Exception as error:
            if self.transport.is_closed:
                raise ClientError(f"{self.target}: the client was closed meanwhile") from error
            if isinstance(error, grpc.RpcError):
                raise client_error(error, self.target) from error
            raise


def _is_broken(error: grpc.RpcError) -> bool:
    """Return whether a stream ended so that another may go on with it."""
    return error.code() in _RETRIED_STATUSES or error.details() == _SENT_TOO_LATE


def remaining_s(deadline_s: float) -> float:
    """Return the seconds until a deadline; at once past it, but never what gRPC rejects."""
    return max(deadline_s - time.monotonic(), 0.0)
