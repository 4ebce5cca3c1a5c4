"""The way to the server over grpc.aio, from the event loop of the first call."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import grpc
import grpc.aio

from mlpserve.client.channel import means_several, open_async_channel
from mlpserve.client.errors import ClientError
from mlpserve.client.streams import MAX_UNANSWERED, StreamRequests
from mlpserve.client.transports import HEALTH, Metadata, Pending


class AsyncTransport:
    """The way to the server over grpc.aio, from the event loop of the first call."""

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        *,
        checks_health: bool | None,
    ) -> None:
        if checks_health is None:
            checks_health = means_several(target)
        self.is_closed = False
        self.process: int | None = None
        self._target = target
        self._open = partial(open_async_channel, target, credentials)
        self._checks_health = checks_health
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._probe: grpc.aio.Channel | None = None
        self._callables: dict[str, Any] = {}

    async def close(self) -> None:
        """Close the connections; calls that are under way end with an error."""
        self.is_closed = True
        if self.process == os.getpid():  # else the parent's connections are not ours to end
            for channel in self._channel, self._probe:
                if channel is not None:
                    await channel.close()

    async def ask(self, method: str, request: bytes, timeout_s: float, metadata: Metadata) -> bytes:
        """Send a request, wait for its answer and return it."""
        return await self.start(method, request, timeout_s, metadata).answer()

    def start(
        self, method: str, request: bytes, timeout_s: float, metadata: Metadata
    ) -> "_AsyncCall":
        """Send a request and return without its answer."""
        call = self._method("unary_unary", method)(request, timeout=timeout_s, metadata=metadata)
        return _AsyncCall(call, self)

    async def first(self, calls: Sequence[Pending], timeout_s: float) -> Pending | None:
        """Wait until one of the calls is over, and return it; None where that takes longer."""
        is_over = asyncio.Event()
        for each in calls:
            each.when_over(is_over.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await is_over.wait()
        return next((each for each in calls if each.is_over), None)

    def turns(self) -> "_AsyncTurns":
        """Return the turns of a new stream."""
        return _AsyncTurns()

    async def stream(
        self,
        method: str,
        requests: StreamRequests,
        timeout_s: float,
        metadata: Metadata,
    ) -> AsyncGenerator[bytes, None]:
        """Send a stream of requests, and yield the answers; the call ends with the iterator."""
        room = _AsyncRoom()
        ask = self._method("stream_stream", method)
        call = ask(requests.encoded(room), timeout=timeout_s, metadata=metadata)
        try:
            async for answer in call:
                room.release()
                yield answer
        except asyncio.CancelledError as error:
            raise self.cancelled(error) from error
        finally:
            call.cancel()

    async def sleep(self, duration_s: float) -> None:
        """Wait a while."""
        await asyncio.sleep(duration_s)

    def cancelled(self, error: asyncio.CancelledError) -> BaseException:
        """Return what a call raises that was cancelled: by its caller, or as the client closed."""
        task = asyncio.current_task()
        if self.is_closed and not (task and task.cancelling()):
            return grpc.FutureCancelledError()
        return error

    def _method(self, kind: str, method: str) -> Callable[..., Any]:
        """Return what sends encoded requests of a method; protobuf never sees the images."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise ClientError("AsyncClient: expected a running event loop of asyncio") from error
        if self._loop is None:
            self._loop = loop
            self._channel = self._open(checks_health=self._checks_health)
            self.process = os.getpid()
        elif self._loop is not loop:
            raise ClientError(
                f"{self._target}: expected a call from the event loop of the first, got one from "
                "another; make an AsyncClient for each loop"
            )
        if method not in self._callables:
            channel = self._channel
            # Health is asked of servers that do not serve, too.
            if method == HEALTH and self._checks_health:
                channel = self._probe = self._open()
            self._callables[method] = getattr(channel, kind)(method)
        return cast(Callable[..., Any], self._callables[method])


class _AsyncCall:
    def __init__(
        self, call: "grpc.aio.UnaryUnaryCall[bytes, bytes]", transport: AsyncTransport
    ) -> None:
        self._call = call
        self._transport = transport

    @property
    def is_over(self) -> bool:
        return self._call.done()

    def when_over(self, act: Callable[[], None]) -> None:
        self._call.add_done_callback(lambda _: act())

    async def answer(self) -> bytes:
        try:
            return await self._call
        except asyncio.CancelledError as error:
            raise self._transport.cancelled(error) from error

    def cancel(self) -> None:
        self._call.cancel()


class _AsyncRoom:
    """Room for requests that are not answered yet: what asks for them waits in the loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_UNANSWERED)

    async def taken(self) -> bool:
        await self._places.acquire()
        return True

    def release(self) -> None:
        self._places.release()


class _AsyncTurns:
    """Turns at the caller's iterator: in a task, as gRPC cancels what asks for requests."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def take(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(_awaited(work))
        await asyncio.shield(self._task)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()
