"""Calls of many threads in one request: who gets what, and what becomes of those that wait."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from first_values import BAD, Asked, image
from mlpserve.client import (
    BatchingClient,
    Client,
    InvalidRequestError,
    NotFoundError,
    Predictions,
    TimeoutExceededError,
)

WAIT_S = 20.0


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def client(asked: Asked, serve: Callable[..., str]) -> Iterator[Client]:
    with Client(serve(Predict=asked.predict)) as opened:
        yield opened


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def waiting(
    threads: ThreadPoolExecutor,
    client: BatchingClient,
    *images: npt.NDArray[Any],
    **arguments: Any,
) -> "list[Future[Predictions]]":
    """Return calls that wait, in this order, for a request that is under way."""
    calls = []
    for each in images:
        before = client.waiting
        calls.append(threads.submit(client.predict, each, **arguments))
        give_up_s = time.monotonic() + WAIT_S
        while client.waiting == before:
            assert time.monotonic() < give_up_s
    return calls


def under_way(
    threads: ThreadPoolExecutor, client: BatchingClient, asked: Asked, **arguments: Any
) -> "Future[Predictions]":
    """Return a call whose request the server holds."""
    asked.is_held = True
    call = threads.submit(client.predict, image(1), **arguments)
    assert asked.entered.wait(WAIT_S)
    return call


def test_calls_that_wait_for_a_request_share_the_next_and_each_gets_its_own_rows(
    client: Client, asked: Asked, threads: ThreadPoolExecutor
) -> None:
    joined = client.batching(max_rows=8)
    first = under_way(threads, joined, asked)
    calls = waiting(threads, joined, image(3), image(1, 4), image(5, 9, 2), image(6), image(7, 8))
    asked.released.set()
    found = [call.result(WAIT_S).labels.tolist() for call in (first, *calls)]
    assert found == [[1], [3], [1, 4], [5, 9, 2], [6], [7, 8]]
    assert asked.counts == [1, 7, 2]
    assert joined.waiting == 0


def test_a_call_without_others_is_sent_at_once_and_a_large_one_alone(
    client: Client, asked: Asked
) -> None:
    joined = client.batching(max_rows=4)
    assert joined.predict(image(5)).labels.tolist() == [5]
    assert joined.predict(image(*range(6))).labels.tolist() == list(range(6))
    assert asked.counts == [1, 6]


def test_only_calls_for_the_same_thing_share_a_request(
    client: Client, asked: Asked, threads: ThreadPoolExecutor
) -> None:
    joined = client.batching()
    first = under_way(threads, joined, asked)
    calls = waiting(threads, joined, image(2), image(3))
    other = threads.submit(joined.predict, image(4), version=7)
    timed = threads.submit(joined.predict, image(5), timings=True)
    asked.released.set()
    assert [call.result(WAIT_S).labels.tolist() for call in (first, *calls, other, timed)] == [
        *([1], [2], [3], [4], [5])
    ]
    assert sorted(zip(asked.counts, asked.versions, strict=True)) == [
        *((1, 0), (1, 0), (1, 7), (2, 0))
    ]


def test_a_refused_image_is_its_callers_error_only_and_in_its_callers_numbering(
    client: Client, asked: Asked, threads: ThreadPoolExecutor
) -> None:
    joined = client.batching()
    first = under_way(threads, joined, asked)
    calls = waiting(threads, joined, image(1, 2), image(3, BAD), image(4))
    asked.released.set()
    assert first.result(WAIT_S).labels.tolist() == [1]
    assert calls[0].result(WAIT_S).labels.tolist() == [1, 2]
    assert calls[2].result(WAIT_S).labels.tolist() == [4]
    with pytest.raises(InvalidRequestError, match="image 1 is bad"):
        calls[1].result(WAIT_S)


def test_an_error_of_the_whole_request_is_an_error_of_its_own_for_each_caller(
    client: Client, asked: Asked, threads: ThreadPoolExecutor
) -> None:
    joined = client.batching()
    first = under_way(threads, joined, asked, model="none")
    calls = waiting(threads, joined, image(1), image(2), model="none")
    asked.released.set()
    errors = [call.exception(WAIT_S) for call in (first, *calls)]
    assert [type(error) for error in errors] == [NotFoundError] * 3
    assert errors[1] is not errors[2]
    assert all(isinstance(error.__cause__, grpc.RpcError) for error in errors if error)
    assert asked.counts == [1, 2]


def test_a_deadline_holds_while_a_call_waits_and_while_it_is_under_way(
    client: Client, asked: Asked, threads: ThreadPoolExecutor
) -> None:
    joined = client.batching()
    first = under_way(threads, joined, asked, timeout_s=2.0)
    (second,) = waiting(threads, joined, image(2), timeout_s=2.0)
    with pytest.raises(TimeoutExceededError):
        first.result(WAIT_S)
    with pytest.raises(TimeoutExceededError):
        second.result(WAIT_S)
    asked.is_held = False
    asked.released.set()
    assert joined.predict(image(3)).labels.tolist() == [3]
    assert joined.waiting == 0


@pytest.mark.parametrize("max_rows", [0, 1025, "8", 1.5])
def test_a_limit_out_of_its_range_is_refused_by_name(client: Client, max_rows: Any) -> None:
    with pytest.raises(InvalidRequestError, match="max_rows: expected from 1 to 1024, got"):
        client.batching(max_rows=max_rows)


def test_many_threads_get_each_their_own_rows_whatever_shares_a_request(client: Client) -> None:
    joined = client.batching(max_rows=5)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            rows = rng.integers(0, BAD, int(rng.integers(1, 4))).tolist()
            assert joined.predict(image(*rows)).labels.tolist() == rows

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, seed) for seed in range(8)]:
            done.result()
    assert joined.waiting == 0
