"""The client for programs with an event loop: the same methods as ``Client``, to be awaited."""

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

import grpc
import grpc.aio
import numpy.typing as npt

from mlpserve.client.arguments import checked_credentials, checked_text
from mlpserve.client.async_batching import DEFAULT_MAX_DELAY_S, AsyncBatchingClient
from mlpserve.client.channel import checked_target, means_several, open_async_channel
from mlpserve.client.core import DEFAULT_TIMEOUT_S, HEALTH, Core
from mlpserve.client.errors import ClientError
from mlpserve.client.explanations import Explanations
from mlpserve.client.predictions import Predictions
from mlpserve.client.requests import MAX_IMAGES_PER_REQUEST
from mlpserve.client.results import HealthStatus, ModelInfo
from mlpserve.client.shared_requests import DEFAULT_MAX_ROWS
from mlpserve.client.streams import MAX_UNANSWERED, StreamRequests
from mlpserve.client.transports import Metadata, Pending


class AsyncClient:
    """Calls an mlpserve server from coroutines; close it when done.

    It is like ``Client`` in all else: arguments, results, errors, retries, balancing. It belongs
    to the event loop of its first call, and can be made before there is one.

    Args:
        target: As for ``Client``.
        timeout_s: As for ``Client``.
        credentials: As for ``Client``.
        token: As for ``Client``.
        checks_health: As for ``Client``.
        hedge_after_s: As for ``Client``.

    Raises:
        InvalidRequestError: An argument is out of its range.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = "",
        checks_health: bool | None = None,
        hedge_after_s: float | None = None,
    ) -> None:
        target = checked_target(checked_text(target, "target"))
        self._transport = _AsyncTransport(
            target, checked_credentials(credentials), checks_health=checks_health
        )
        self._core = Core(
            target,
            self._transport,
            timeout_s=timeout_s,
            token=token,
            hedge_after_s=hedge_after_s,
        )

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are under way end with an error."""
        await self._transport.close()

    async def predict(
        self,
        images: npt.ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        max_images_per_request: int | None = MAX_IMAGES_PER_REQUEST,
        class_names: bool = False,
        timings: bool = False,
        ood_scores: bool = False,
    ) -> Predictions:
        """Classify images; see ``Client.predict``.

        Raises:
            InvalidRequestError: The images are not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return await self._core.predict(
            images,
            model=model,
            version=version,
            label=label,
            timeout_s=timeout_s,
            max_images_per_request=max_images_per_request,
            class_names=class_names,
            timings=timings,
            ood_scores=ood_scores,
        )

    def predict_stream(
        self,
        batches: Iterable[npt.ArrayLike] | AsyncIterable[npt.ArrayLike],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        class_names: bool = False,
        timings: bool = False,
        ood_scores: bool = False,
    ) -> AsyncIterator[Predictions]:
        """Classify batch after batch over one call; see ``Client.predict_stream``.

        Args:
            batches: As for ``Client.predict_stream``, or an asynchronous iterable. One that is not
                asynchronous is asked in the event loop, and must not wait.
            model: As for ``Client.predict``.
            version: As for ``Client.predict``.
            label: As for ``Client.predict_stream``.
            timeout_s: Seconds for the whole stream, instead of the client's.
            class_names: As for ``Client.predict``.
            timings: As for ``Client.predict``.
            ood_scores: As for ``Client.predict``.

        Yields:
            The answer to each batch, in their order.

        Raises:
            InvalidRequestError: A batch is not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return self._core.predict_stream(
            batches,
            model=model,
            version=version,
            label=label,
            timeout_s=timeout_s,
            class_names=class_names,
            timings=timings,
            ood_scores=ood_scores,
        )

    async def explain(
        self,
        images: npt.ArrayLike,
        *,
        classes: npt.ArrayLike | None = None,
        method: str | None = None,
        steps: int | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        max_images_per_request: int | None = None,
        class_names: bool = False,
        timings: bool = False,
    ) -> Explanations:
        """Say what in images spoke for a class, or against it; see ``Client.explain``.

        Raises:
            InvalidRequestError: The images are not what the model takes, or another argument is out
                of its range.
            ServerFaultError: The server is too old to explain.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return await self._core.explain(
            images,
            classes=classes,
            method=method,
            steps=steps,
            model=model,
            version=version,
            label=label,
            timeout_s=timeout_s,
            max_images_per_request=max_images_per_request,
            class_names=class_names,
            timings=timings,
        )

    def batching(
        self,
        *,
        max_rows: int | None = DEFAULT_MAX_ROWS,
        max_delay_s: float | None = DEFAULT_MAX_DELAY_S,
    ) -> AsyncBatchingClient:
        """Return an object whose ``predict`` joins the calls of many coroutines into one request.

        Worth it where many coroutines ask for an image or a few: a request costs this program a
        tenth of a millisecond, however many images it has.

        Args:
            max_rows: The most images to send as one request, up to 1024. A call with as many or
                more is sent alone. Not more than the server's ``ModelInfo.max_batch_images``.
            max_delay_s: Seconds that a call waits for others at most; 0 joins only calls that are
                made before the event loop turns.

        Raises:
            InvalidRequestError: An argument is out of its range.
        """
        return AsyncBatchingClient(self._core, max_rows=max_rows, max_delay_s=max_delay_s)

    async def model(
        self,
        name: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> ModelInfo:
        """Describe one model; see ``Client.model``.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return await self._core.model(name, version=version, label=label, timeout_s=timeout_s)

    async def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Describe all models that are served; see ``Client.models``.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return await self._core.models(timeout_s=timeout_s)

    async def health(
        self, service: str | None = None, *, timeout_s: float | None = None
    ) -> HealthStatus:
        """Ask for the health of the server; see ``Client.health``.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return await self._core.health(service, timeout_s=timeout_s)

    async def wait_until_ready(self, *, timeout_s: float | None = None) -> None:
        """Wait until the server answers predictions; see ``Client.wait_until_ready``.

        Raises:
            TimeoutExceededError: It did not in that time. The message says what was found last.
            ClientError: It refuses for another reason than that it is not ready.
        """
        await self._core.wait_until_ready(timeout_s=timeout_s)


class _AsyncTransport:
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
        self.is_closed = True
        if self.process == os.getpid():  # else the parent's connections are not ours to end
            for channel in self._channel, self._probe:
                if channel is not None:
                    await channel.close()

    async def ask(self, method: str, request: bytes, timeout_s: float, metadata: Metadata) -> bytes:
        return await self.start(method, request, timeout_s, metadata).answer()

    def start(
        self, method: str, request: bytes, timeout_s: float, metadata: Metadata
    ) -> "_AsyncCall":
        call = self._method("unary_unary", method)(request, timeout=timeout_s, metadata=metadata)
        return _AsyncCall(call, self)

    async def first(self, calls: Sequence[Pending], timeout_s: float) -> Pending | None:
        is_over = asyncio.Event()
        for each in calls:
            each.when_over(is_over.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await is_over.wait()
        return next((each for each in calls if each.is_over), None)

    def turns(self) -> "_AsyncTurns":
        return _AsyncTurns()

    async def stream(
        self,
        method: str,
        requests: StreamRequests,
        timeout_s: float,
        metadata: Metadata,
    ) -> AsyncGenerator[bytes, None]:
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
        self, call: "grpc.aio.UnaryUnaryCall[bytes, bytes]", transport: _AsyncTransport
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
