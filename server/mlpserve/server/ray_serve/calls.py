"""Calls: rpcs that come to a replica, answered in threads by the services of an app.

The services are those of the public gRPC API, and so is what lets calls in. Only the call itself is
another: what `grpc.ServicerContext` tells and is told there, ``Call`` does here.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from time import monotonic
from typing import Any, NamedTuple, NoReturn

import grpc

from mlpserve.server.errors import TooLargeError, UnsupportedError
from mlpserve.server.grpc_api.interceptor import AdmissionInterceptor
from mlpserve.server.statuses import Refusal, refuse
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_log import REQUEST_ID_KEY, request_id
from mlpserve.server.telemetry.request_record import Metadata, RequestRecord


class Encoded(NamedTuple):
    """A response that is written already; Ray would have it write itself.

    Attributes:
        data: The bytes of the message.
    """

    data: bytes

    def SerializeToString(self) -> bytes:
        """Return the bytes, as a message of protobuf does."""
        return self.data


class _AbortedError(Exception):
    """A service has ended its call; the call knows how."""


class Call:
    """One call, as services know it: the part of `grpc.ServicerContext` that they use.

    Safe to use from many threads.

    Args:
        context: What Ray brought of it, and takes the status from.
        remaining_s: The seconds until its deadline; None where it has none, or nobody knows.
    """

    def __init__(self, context: Any, remaining_s: float | None) -> None:  # noqa: ANN401 - Ray's
        self._context = context
        left_s = math.inf if remaining_s is None else remaining_s
        self._deadline_s = monotonic() + left_s
        self._has_ended = Event()

    def end(self) -> None:
        """Note that nobody waits for an answer any more."""
        self._has_ended.set()

    def is_active(self) -> bool:
        """Return whether anybody does."""
        return not self._has_ended.is_set()

    def time_remaining(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadline_s - monotonic()

    def invocation_metadata(self) -> Metadata:
        """Return what the caller sent along."""
        return tuple(self._context.invocation_metadata())

    def peer(self) -> str:
        """Return the connection of the caller to the proxy."""
        return str(self._context.peer())

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status, and what the proxy knows by that it is no failure of Ray."""
        self._context.set_code(code)
        self.set_trailing_metadata([(REQUEST_ID_KEY, request_id(self.invocation_metadata()))])

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set what is sent along at the end."""
        self._context.set_trailing_metadata(list(metadata))

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with an error."""
        self._context.set_code(code)
        self._context.set_details(details)
        raise _AbortedError

    def refuse(self, refusal: Refusal) -> None:
        """Set the status, the message and what is sent along of a call that gets no answer."""
        self._context.set_code(refusal.code)
        self._context.set_details(refusal.details)
        self.set_trailing_metadata(refusal.metadata)


class Calls:
    """Answers calls. For one event loop.

    Args:
        services: What is called.
        interceptor: Lets calls in.
        recorder: Records those that reach no service.
        threads: So many calls are answered at once; a stream holds one of them.
        max_message_bytes: A longer request is refused.
    """

    def __init__(
        self,
        services: tuple[grpc.GenericRpcHandler, ...],
        interceptor: AdmissionInterceptor,
        recorder: Recorder,
        *,
        threads: int,
        max_message_bytes: int,
    ) -> None:
        self._services = services
        self._interceptor = interceptor
        self._recorder = recorder
        self._max_message_bytes = max_message_bytes
        self._pool = ThreadPoolExecutor(threads, "request")

    def close(self) -> None:
        """Answer no more calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def unary(self, path: str, data: bytes, call: Call) -> Encoded:
        """Return the response to one request; it is empty where the call got an error."""
        try:
            return Encoded(await self._in_thread(self._answer, path, data, call))
        finally:
            call.end()

    async def stream(
        self, path: str, requests: AsyncIterator[bytes], call: Call
    ) -> AsyncGenerator[Encoded, None]:
        """Yield the responses to a stream of requests, and an empty one where it got an error."""
        arriving = _Requests(requests, asyncio.get_running_loop(), self._max_message_bytes)
        responses = self._responses(path, arriving, call)
        context = copy_context()  # one for all of them: they note in it who asks
        next_one: asyncio.Future[Encoded | None] | None = None
        try:
            while True:
                next_one = self._in_thread(context.run, next, responses, None)
                response = await asyncio.shield(next_one)
                if response is None:
                    return
                yield response
        finally:
            call.end()
            arriving.stop()
            if next_one is not None:
                await asyncio.wait([next_one])
            await self._in_thread(context.run, responses.close)

    def _in_thread(self, function: Callable[..., Any], *arguments: object) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, copy_context().run, function, *arguments)

    def _answer(self, path: str, data: bytes, call: Call) -> bytes:
        try:
            check_length(data, self._max_message_bytes)
            response: bytes = self._handler(path, call).stream_unary(iter([data]), call)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            self._end(path, call, error)
            return b""
        return response

    def _responses(
        self, path: str, requests: Iterator[bytes], call: Call
    ) -> Generator[Encoded, None, None]:
        try:
            for response in self._handler(path, call).stream_stream(requests, call):
                yield Encoded(response)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            self._end(path, call, error)
            yield Encoded(b"")

    def _end(self, path: str, call: Call, error: Exception) -> None:
        """Have the caller told of an error, where a service has not."""
        if not isinstance(error, _AbortedError):
            record = RequestRecord(path.rpartition("/")[2], call.invocation_metadata())
            call.refuse(refuse(self._recorder, record, error))

    def _handler(self, path: str, call: Call) -> Any:  # noqa: ANN401 - grpcio's
        """Return what answers a call, or what refuses it."""
        details = _CallDetails(path, call.invocation_metadata())
        handler = self._interceptor.intercept_service(self._find, details)
        if handler is None:
            raise UnsupportedError("Method not found!")
        return handler

    def _find(self, details: grpc.HandlerCallDetails) -> Any:  # noqa: ANN401
        found = (service.service(details) for service in self._services)
        return next((handler for handler in found if handler is not None), None)


class _CallDetails(grpc.HandlerCallDetails):
    """What services are found by."""

    def __init__(self, method: str, metadata: Metadata) -> None:
        self.method = method
        self.invocation_metadata = metadata  # type: ignore[assignment] # as grpcio has it


class _Requests:
    """Iterates, in a thread, over requests that come to an event loop.

    Args:
        requests: Those.
        loop: The loop.
        max_message_bytes: A longer one is refused.
    """

    def __init__(
        self,
        requests: AsyncIterator[bytes],
        loop: asyncio.AbstractEventLoop,
        max_message_bytes: int,
    ) -> None:
        self._requests = requests
        self._loop = loop
        self._max_message_bytes = max_message_bytes
        self._next: Future[bytes | None] | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """Let nobody wait for another."""
        self._is_stopped = True
        if self._next is not None:
            self._next.cancel()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._next = asyncio.run_coroutine_threadsafe(self._received(), self._loop)
        if self._is_stopped:
            self._next.cancel()
        try:
            data = self._next.result()
        except CancelledError:
            data = None
        if data is None:
            raise StopIteration
        check_length(data, self._max_message_bytes)
        return data

    async def _received(self) -> bytes | None:
        return await anext(self._requests, None)


def check_length(data: bytes, max_bytes: int) -> None:
    """Refuse a message that is too long.

    Raises:
        TooLargeError: It is.
    """
    if len(data) > max_bytes:
        raise TooLargeError(
            f"message: expected at most {max_bytes} bytes, got {len(data)}; send fewer images at "
            "once"
        )
