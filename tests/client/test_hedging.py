"""Hedging: a call that is not answered soon is made once more, and the first answer counts."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any, Final

import grpc
import numpy as np
import pytest

from mlpserve.client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    Predictions,
    TimeoutExceededError,
)
from mlpserve.client.testing import FakeServer
from mlpserve.v1 import prediction_pb2

IMAGES: Final = np.zeros((2, 6), np.uint8)
SOON_S: Final = 0.05
LATE_S: Final = 60.0  # which nobody waits for who is answered by the other call
Ask = Callable[..., list[Predictions]]


def ask_blocking(
    target: str,
    count: int = 1,
    images: Any = IMAGES,
    *,
    timeout_s: float = LATE_S,
    after_s: float = SOON_S,
) -> list[Predictions]:
    with Client(target, hedge_after_s=after_s, timeout_s=timeout_s) as client:
        return [client.predict(images) for _ in range(count)]


def ask_asynchronously(
    target: str,
    count: int = 1,
    images: Any = IMAGES,
    *,
    timeout_s: float = LATE_S,
    after_s: float = SOON_S,
) -> list[Predictions]:
    async def ask() -> list[Predictions]:
        async with AsyncClient(target, hedge_after_s=after_s, timeout_s=timeout_s) as client:
            return [await client.predict(images) for _ in range(count)]

    return asyncio.run(ask())


both_kinds = pytest.mark.parametrize("ask", [ask_blocking, ask_asynchronously])


class SlowAtFirst:
    """Answers all calls but the first at once, each with its number as the version.

    Args:
        failure: What the second ends with, instead; the first is answered a moment later.
    """

    def __init__(self, failure: grpc.StatusCode | None = None) -> None:
        self.calls = 0
        self.failure = failure
        self.failing = threading.Event()
        self.cancelled = threading.Event()

    def predict(
        self, request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        self.calls += 1
        number = self.calls
        if number == 1:
            context.add_callback(self.cancelled.set)
            if self.failure:
                self.failing.wait(LATE_S)
            self.cancelled.wait(10 * SOON_S if self.failure else LATE_S)
        elif self.failure is not None:
            self.failing.set()
            context.abort(self.failure, "no")
        return answer(request, number)


def answer(request: prediction_pb2.PredictRequest, number: int) -> prediction_pb2.PredictResponse:
    count = request.images.count
    return prediction_pb2.PredictResponse(
        model_name="m",
        model_version=number,
        probabilities=bytes(8 * count),
        labels=bytes(4 * count),
    )


@both_kinds
def test_a_late_call_is_made_once_more_and_the_late_one_is_given_up(
    serve: Callable[..., str], ask: Ask
) -> None:
    server = SlowAtFirst()
    target = serve(Predict=server.predict)
    [found] = ask(target)
    assert found.model_version == 2
    assert server.cancelled.wait(LATE_S)


@both_kinds
def test_where_one_of_the_two_fails_the_other_counts(serve: Callable[..., str], ask: Ask) -> None:
    server = SlowAtFirst(failure=grpc.StatusCode.INTERNAL)
    [found] = ask(serve(Predict=server.predict))
    assert (found.model_version, server.calls) == (1, 2)


@both_kinds
def test_calls_that_are_answered_soon_are_made_once(ask: Ask) -> None:
    with FakeServer() as fake:
        ask(fake.target, 5, after_s=LATE_S / 2)
        assert len(fake.calls) == 5


@both_kinds
def test_large_calls_are_made_once(serve: Callable[..., str], ask: Ask) -> None:
    with FakeServer() as fake:
        fake.delay(4 * SOON_S)
        ask(fake.target, 1, np.zeros((100, 784), np.uint8))
        assert len(fake.calls) == 1


@both_kinds
def test_where_all_answers_are_late_few_calls_are_made_twice(
    serve: Callable[..., str], ask: Ask
) -> None:
    numbers = itertools.count()
    arrived = [threading.Event() for _ in range(30)]

    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        number = next(numbers)
        arrived[number].set()
        if number >= 20:
            arrived[-1].wait(4 * SOON_S)
        elif number % 2 == 0:
            arrived[number + 1].wait(LATE_S)
        return answer(request, number)

    ask(serve(Predict=predict), 15)
    # Ten at first, and then one of ten.
    assert next(numbers) in (25, 26)


@both_kinds
def test_the_deadline_holds_for_both(serve: Callable[..., str], ask: Ask) -> None:
    with FakeServer() as fake:
        fake.delay(LATE_S)
        with pytest.raises(TimeoutExceededError):
            ask(fake.target, timeout_s=4 * SOON_S)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_delay_out_of_its_range_is_refused(kind: Callable[..., Any]) -> None:
    with pytest.raises(InvalidRequestError, match="hedge_after_s: expected seconds above 0, got 0"):
        kind("localhost:1", hedge_after_s=0)
