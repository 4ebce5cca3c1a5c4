"""Calls of many coroutines in one request: who gets what, when it is sent, and who may leave."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from first_values import BAD, Asked, image
from mlpserve.client import (
    AsyncBatchingClient,
    AsyncClient,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    Predictions,
    TimeoutExceededError,
    UnavailableError,
)

WAIT_S = 20.0
FOR_EVER_S = 3600.0


class SetLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test sets forward."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self._ahead_s

    def advance(self, duration_s: float) -> None:
        self._ahead_s += duration_s


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def batching(asked: Asked, serve: Callable[..., str]) -> Callable[..., Any]:
    """Return a function that runs a coroutine function that is given a batching client."""
    target = serve(Predict=asked.predict)

    def run(work: Callable[[AsyncBatchingClient], Awaitable[Any]], **arguments: Any) -> Any:
        async def program() -> None:
            async with AsyncClient(target) as client:
                await work(client.batching(**{"max_delay_s": FOR_EVER_S, **arguments}))
            # Nothing of it goes on.
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=SetLoop) as runner:
            runner.run(program())

    return run


def advance(duration_s: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SetLoop)
    loop.advance(duration_s)


async def asking(
    client: AsyncBatchingClient, *images: npt.NDArray[Any], **arguments: Any
) -> list[asyncio.Task[Predictions]]:
    """Return calls that have joined a batch."""
    calls = [asyncio.create_task(client.predict(each, **arguments)) for each in images]
    await asyncio.sleep(0)
    return calls


def test_a_request_is_sent_when_it_is_full_and_each_caller_gets_its_own_rows_in_order(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        calls = await asking(client, image(3), image(1, 4), image(1), image(5, 9, 2), image(6))
        found = await asyncio.gather(*calls)
        assert [answer.labels.tolist() for answer in found] == [[3], [1, 4], [1], [5, 9, 2], [6]]
        assert found[1].probabilities.argmax(axis=1).tolist() == [1, 4]
        assert (found[0].model_name, found[0].model_version) == ("first", 1)

    batching(work, max_rows=8)
    assert asked.counts == [8]


def test_a_request_is_sent_after_the_delay_of_its_first_call(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        calls = await asking(client, image(1))
        advance(6)
        calls += await asking(client, image(2))
        assert asked.counts == []
        advance(3.9)
        await asyncio.sleep(0.05)
        assert asked.counts == []
        advance(0.2)
        assert [(await call).labels.tolist() for call in calls] == [[1], [2]]

    batching(work, max_delay_s=10)
    assert asked.counts == [2]


def test_without_a_delay_calls_of_one_turn_of_the_loop_share_a_request(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        await asyncio.gather(*(client.predict(image(number)) for number in range(64)))

    batching(work, max_delay_s=0)
    assert asked.counts == [64]


def test_a_call_that_does_not_fit_waits_for_the_next_request_and_a_large_one_goes_alone(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        first = await asking(client, image(1, 2), image(3))
        large = await asking(client, image(*range(9)))
        rest = await asking(client, image(4, 5))
        assert len(await large[0]) == 9
        await client.close()
        assert [(await call).labels.tolist() for call in first + rest] == [[1, 2], [3], [4, 5]]

    batching(work, max_rows=4)
    assert sorted(asked.counts) == [2, 3, 9]


def test_only_calls_for_the_same_thing_share_a_request(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        calls = await asking(client, image(1), image(2))
        calls += await asking(client, image(3), version=7)
        calls += await asking(client, image(4, width=9), image(5, width=9), image(6, width=9))
        await client.close()
        assert [(await call).labels.tolist() for call in calls] == [[n] for n in range(1, 7)]

    batching(work)
    assert sorted(zip(asked.counts, asked.versions, strict=True)) == [(1, 7), (2, 0), (3, 0)]


def test_a_refused_image_is_its_callers_error_only_and_in_its_callers_numbering(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        calls = await asking(client, image(1, 2), image(3, BAD), image(4))
        await client.close()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [getattr(answer, "labels", np.array([])).tolist() for answer in found] == [
            [1, 2],
            [],
            [4],
        ]
        assert isinstance(found[1], InvalidRequestError)
        assert "image 1 is bad" in str(found[1])

    batching(work)
    assert asked.counts[0] == 5


def test_an_error_of_the_whole_request_is_an_error_of_its_own_for_each_caller(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        calls = await asking(client, image(1), image(2), model="none")
        await client.close()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in found] == [NotFoundError, NotFoundError]
        assert found[0] is not found[1]
        assert all("NOT_FOUND: no model" in str(error) for error in found)
        assert all(isinstance(error.__cause__, grpc.RpcError) for error in found)  # type: ignore[union-attr]

    batching(work)
    assert asked.counts == [2]


def test_arguments_are_checked_before_a_call_joins(batching: Callable[..., Any]) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        others = await asking(client, image(1))
        for arguments in ({"timeout_s": 0}, {"version": "one"}, {"label": 1}):
            with pytest.raises(InvalidRequestError, match=next(iter(arguments))):
                await client.predict(image(1), **arguments)
        with pytest.raises(InvalidRequestError, match="images: expected"):
            await client.predict([])
        await client.close()
        assert (await others[0]).labels.tolist() == [1]

    batching(work)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_rows": 0}, "max_rows: expected from 1 to 1024, got 0"),
        ({"max_rows": 1025}, "max_rows: expected from 1 to 1024, got 1025"),
        ({"max_delay_s": -1}, "max_delay_s: expected seconds from 0, got -1"),
    ],
    ids=str,
)
def test_a_limit_out_of_its_range_is_refused_by_name(
    batching: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        pass

    with pytest.raises(InvalidRequestError, match=message):
        batching(work, **arguments)


def test_who_is_cancelled_before_the_request_is_sent_has_no_rows_in_it(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        calls = await asking(client, image(1), image(2), image(3))
        calls[1].cancel()
        await asyncio.wait(calls[1:2])
        await client.close()
        assert [(await calls[n]).labels.tolist() for n in (0, 2)] == [[1], [3]]

    batching(work)
    assert asked.counts == [2]


def test_a_request_is_cancelled_when_the_last_of_its_callers_has_left(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        asked.is_held = True
        calls = await asking(client, image(1), image(2))
        closing = asyncio.create_task(client.close())
        assert await asyncio.to_thread(asked.entered.wait, WAIT_S)
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        assert not asked.cancelled.is_set()
        calls[1].cancel()
        assert await asyncio.to_thread(asked.cancelled.wait, WAIT_S)
        await closing
        asked.released.set()

    batching(work)
    assert asked.counts == [2]


def test_each_caller_has_a_deadline_of_its_own(batching: Callable[..., Any], asked: Asked) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        asked.is_held = True
        patient = await asking(client, image(1), timeout_s=1000)
        hasty = await asking(client, image(2), timeout_s=5)
        closing = asyncio.create_task(client.close())
        assert await asyncio.to_thread(asked.entered.wait, WAIT_S)
        advance(6)
        with pytest.raises(TimeoutExceededError, match="no answer within 5 s"):
            await hasty[0]
        asked.released.set()
        assert (await patient[0]).labels.tolist() == [1]
        await closing

    batching(work)


def test_when_it_is_closed_all_are_answered_first_and_later_calls_refused(
    batching: Callable[..., Any], asked: Asked
) -> None:
    async def work(client: AsyncBatchingClient) -> None:
        async with client:
            calls = await asking(client, image(1), image(2))
        assert all(call.done() or not call.cancelled() for call in calls)
        assert [(await call).labels.tolist() for call in calls] == [[1], [2]]
        with pytest.raises(ClientError, match="batching: closed; make another"):
            await client.predict(image(1))

    batching(work)
    assert asked.counts == [2]


def test_where_nothing_answers_every_caller_is_told(serve: Callable[..., str]) -> None:
    def stopping(request: Any, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "-1"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")

    async def program() -> list[Any]:
        async with AsyncClient(serve(Predict=stopping)) as client, client.batching() as joined:
            return await asyncio.gather(
                *(joined.predict(image(n)) for n in range(5)), return_exceptions=True
            )

    assert [type(error) for error in asyncio.run(program())] == [UnavailableError] * 5
