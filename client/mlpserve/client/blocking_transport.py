"""The way to the server over gRPC's blocking API, on which coroutines never suspend."""

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from threading import Event, Lock, Semaphore
from typing import Any, TypeVar

import grpc

from mlpserve.client.channel import means_several, open_channel
from mlpserve.client.streams import MAX_UNANSWERED, StreamRequests
from mlpserve.client.transports import HEALTH, Metadata, Pending

ItemT = TypeVar("ItemT")


def run(coroutine: Coroutine[Any, Any, ItemT]) -> ItemT:
    """Return the result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: ItemT = done.value
        return result
    raise RuntimeError("a coroutine of the blocking client was suspended")


def blocking(items: AsyncGenerator[ItemT, None]) -> Iterator[ItemT]:
    """Yield what an asynchronous generator yields that never suspends."""
    try:
        while True:
            try:
                item = run(anext(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(items.aclose())


class BlockingTransport:
    """The way to the server over gRPC's blocking API: nothing here ever suspends."""

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
        self.process: int | None = os.getpid()
        self._open = partial(open_channel, target, credentials)
        self._channel = self._open(checks_health=checks_health)
        self._checks_health = checks_health
        self._probes: list[grpc.Channel] = []
        self._callables: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def close(self) -> None:
        """Close the connections; calls that are under way end with an error."""
        self.is_closed = True
        if self.process == os.getpid():  # else the parent's connections are not ours to end
            for channel in self._channel, *self._probes:
                channel.close()

    async def ask(self, method: str, request: bytes, timeout_s: float, metadata: Metadata) -> bytes:
        """Send a request, wait for its answer and return it."""
        return self._unary(method)(request, timeout=timeout_s, metadata=metadata)

    def start(
        self, method: str, request: bytes, timeout_s: float, metadata: Metadata
    ) -> "_BlockingCall":
        """Send a request and return without its answer."""
        return _BlockingCall(
            self._unary(method).future(request, timeout=timeout_s, metadata=metadata)
        )

    async def first(self, calls: Sequence[Pending], timeout_s: float) -> Pending | None:
        """Wait until one of the calls is over, and return it; None where that takes longer."""
        is_over = Event()
        for each in calls:
            each.when_over(is_over.set)
        is_over.wait(timeout_s)
        return next((each for each in calls if each.is_over), None)

    def turns(self) -> "_BlockingTurns":
        """Return the turns of a new stream."""
        return _BlockingTurns()

    async def stream(
        self,
        method: str,
        requests: StreamRequests,
        timeout_s: float,
        metadata: Metadata,
    ) -> AsyncGenerator[bytes, None]:
        """Send a stream of requests, and yield the answers; the call ends with the iterator."""
        room = _BlockingRoom()
        ask: Callable[..., Any] = self._channel.stream_stream(method)
        call = ask(blocking(requests.encoded(room)), timeout=timeout_s, metadata=metadata)
        try:
            for answer in call:
                room.release()
                yield answer
        finally:
            room.close()
            call.cancel()

    async def sleep(self, duration_s: float) -> None:
        """Wait a while."""
        time.sleep(duration_s)  # noqa: ASYNC251 - no event loop runs this

    def _unary(self, method: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        """Return what sends encoded requests of a method; protobuf never sees the images."""
        found = self._callables.get(method)
        if found is None:
            channel = self._channel
            # Health is asked of servers that do not serve, too.
            if method == HEALTH and self._checks_health:
                channel = self._open()
                self._probes.append(channel)
            found = self._callables[method] = channel.unary_unary(method)
        return found


class _BlockingCall:
    def __init__(self, call: "grpc.Future[bytes]") -> None:
        self._call = call

    @property
    def is_over(self) -> bool:
        return self._call.done()

    def when_over(self, act: Callable[[], None]) -> None:
        self._call.add_done_callback(lambda _: act())

    async def answer(self) -> bytes:
        return self._call.result()

    def cancel(self) -> None:
        self._call.cancel()


class _BlockingRoom:
    """Room for requests that are not answered yet: what asks for them waits in a thread."""

    def __init__(self) -> None:
        self._places = Semaphore(MAX_UNANSWERED)
        self._is_closed = False

    async def taken(self) -> bool:
        self._places.acquire()
        return not self._is_closed

    def release(self) -> None:
        self._places.release()

    def close(self) -> None:
        self._is_closed = True
        self._places.release()


class _BlockingTurns:
    """Turns at the caller's iterator, which threads of two calls of one stream may want."""

    def __init__(self) -> None:
        self._lock = Lock()

    async def take(self, work: Callable[[], Awaitable[None]]) -> None:
        with self._lock:
            await work()

    async def close(self) -> None:
        """Do nothing: a thread that waits for the caller's iterator cannot be told to stop."""
