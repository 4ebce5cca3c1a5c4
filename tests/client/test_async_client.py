"""The client for event loops: the same calls, and what only an event loop can do to them."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.client import (
    AsyncClient,
    Client,
    ClientError,
    HealthStatus,
    InvalidRequestError,
    NotFoundError,
    Predictions,
    TimeoutExceededError,
    UnavailableError,
)
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2

WAIT_S = 20.0
IMAGES = np.random.default_rng(3).integers(0, 256, (200, 2, 3), np.uint8)


def in_client(target: str, work: Callable[[AsyncClient], Awaitable[Any]], **arguments: Any) -> Any:
    """Return what a coroutine returns that is given a client."""

    async def program() -> Any:
        async with AsyncClient(target, **arguments) as client:
            return await asyncio.wait_for(work(client), WAIT_S)

    return asyncio.run(program())


def check_equal(found: Predictions, expected: Predictions) -> None:
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-5)
    assert found.model_name == expected.model_name
    assert found.model_version == expected.model_version


def test_all_methods_answer_what_those_of_the_blocking_client_answer(
    server: Server, client: Client
) -> None:
    async def work(same: AsyncClient) -> None:
        await same.wait_until_ready()
        found = await same.predict(IMAGES, version=1, max_images_per_request=30)
        check_equal(found, client.predict(IMAGES, version=1, max_images_per_request=30))
        assert await same.models() == client.models()
        assert await same.model("tiny", version=1) == client.model("tiny", version=1)
        assert await same.health() is client.health() is HealthStatus.SERVING

    in_client(server.address, work)


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_stream_takes_plain_and_asynchronous_iterables(
    server: Server, client: Client, *, is_async: bool
) -> None:
    batches = [IMAGES[:3], IMAGES[3:50], IMAGES[50:51]] * 20

    async def asynchronous() -> AsyncIterator[npt.NDArray[np.uint8]]:
        for batch in batches:
            await asyncio.sleep(0)
            yield batch

    async def work(same: AsyncClient) -> list[Predictions]:
        source = asynchronous() if is_async else batches
        return [answer async for answer in same.predict_stream(source)]

    found = in_client(server.address, work)
    for answer, expected in zip(found, client.predict_stream(batches), strict=True):
        check_equal(answer, expected)


def test_what_the_batches_raise_comes_to_the_caller_after_the_answers_before_it(
    server: Server,
) -> None:
    class DiskError(Exception):
        pass

    async def batches() -> AsyncIterator[npt.NDArray[np.uint8]]:
        yield IMAGES[:2]
        yield IMAGES[:3]
        raise DiskError

    async def work(client: AsyncClient) -> list[int]:
        answers = client.predict_stream(batches())
        counts = [len(await anext(answers)), len(await anext(answers))]
        with pytest.raises(DiskError):
            await anext(answers)
        return counts

    assert in_client(server.address, work) == [2, 3]


def test_failures_have_the_kinds_that_those_of_the_blocking_client_have(server: Server) -> None:
    async def work(client: AsyncClient) -> None:
        with pytest.raises(InvalidRequestError, match="INVALID_ARGUMENT: images.data") as caught:
            await client.predict(np.zeros((1, 5), np.uint8))
        assert isinstance(caught.value.__cause__, grpc.RpcError)
        assert caught.value.field == "images.data"
        with pytest.raises(InvalidRequestError, match="images: expected integers"):
            await client.predict(np.zeros((1, 6), np.complex64))
        with pytest.raises(NotFoundError, match="version 9"):
            await client.predict(IMAGES[:1], version=9)
        with pytest.raises(NotFoundError, match="version 9"):
            await anext(client.predict_stream([IMAGES[:1]], version=9))
        with pytest.raises(InvalidRequestError, match="timeout_s"):
            await client.models(timeout_s=0)

    in_client(server.address, work)


def test_a_deadline_ends_a_call_and_a_stream(serve: Callable[..., str]) -> None:
    ended = threading.Event()

    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        ended.wait(WAIT_S)

    def slow_stream(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        ended.wait(WAIT_S)
        yield prediction_pb2.PredictStreamResponse()

    async def work(client: AsyncClient) -> None:
        with pytest.raises(TimeoutExceededError):
            await client.predict(IMAGES)
        with pytest.raises(TimeoutExceededError):
            await anext(client.predict_stream([IMAGES]))
        ended.set()

    in_client(serve(Predict=slow, PredictStream=slow_stream), work, timeout_s=0.2)


def test_a_caller_who_is_cancelled_cancels_the_call_at_the_server(
    serve: Callable[..., str],
) -> None:
    entered, cancelled = threading.Event(), threading.Event()

    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(cancelled.set)
        entered.set()
        cancelled.wait(WAIT_S)

    async def work(client: AsyncClient) -> None:
        call = asyncio.create_task(client.predict(IMAGES))
        assert await asyncio.to_thread(entered.wait, WAIT_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(cancelled.wait, WAIT_S)

    in_client(serve(Predict=slow), work)


def test_closing_the_client_ends_calls_with_an_error_that_says_so(
    serve: Callable[..., str],
) -> None:
    entered, ended = threading.Event(), threading.Event()

    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        entered.set()
        ended.wait(WAIT_S)

    async def work(client: AsyncClient) -> None:
        call = asyncio.create_task(client.predict(IMAGES))
        assert await asyncio.to_thread(entered.wait, WAIT_S)
        await client.close()
        with pytest.raises(ClientError, match="the client was closed meanwhile"):
            await call
        with pytest.raises(ClientError, match="the client is closed"):
            await client.predict(IMAGES)
        ended.set()

    in_client(serve(Predict=slow), work)


def test_a_client_can_be_made_before_its_loop_but_has_one_only(server: Server) -> None:
    client = AsyncClient(server.address)

    async def ask() -> int:
        return len(await client.predict(IMAGES[:3]))

    assert asyncio.run(ask()) == 3
    with pytest.raises(ClientError, match="make an AsyncClient for each loop"):
        asyncio.run(ask())


def test_where_nothing_listens_waiting_ends_at_the_deadline_and_says_what_was_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen, so that nobody else can
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()

        async def work(client: AsyncClient) -> None:
            with pytest.raises(UnavailableError):
                await client.health()
            with pytest.raises(TimeoutExceededError, match="UNAVAILABLE.*not ready in time"):
                await client.wait_until_ready(timeout_s=0.5)

        in_client(target, work)
        assert time.monotonic() - started < WAIT_S
