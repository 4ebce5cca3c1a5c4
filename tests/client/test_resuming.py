"""Streams whose calls break: they go on after the last answer, and nothing is lost or repeated."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from forgetful_proxy import ForgetfulProxy
from mlpserve.client import AsyncClient, Client, Predictions
from mlpserve.server.grpc_api import transport
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2

WAIT_S: Final = 20.0
QUICK_MS: Final = 200
COUNT: Final = 60


def numbered(count: int = COUNT) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield batches that are known by their first value."""
    for number in range(count):
        yield np.full((1, 4), number, np.uint8)


def number_of(answer: Predictions) -> int:
    return int(answer.labels[0])


def answer_to(request: prediction_pb2.PredictStreamRequest) -> prediction_pb2.PredictStreamResponse:
    """Return an answer whose class is the first value of the image."""
    return prediction_pb2.PredictStreamResponse(
        model_name="first",
        model_version=1,
        probabilities=np.zeros(256, "<f4").tobytes(),
        labels=np.array([request.images.data[0]], "<i4").tobytes(),
    )


class Breaking:
    """Answers some batches of a stream, and then breaks the call; so often as there are numbers."""

    def __init__(self, *answered: int, status: grpc.StatusCode) -> None:
        self._answered = list(answered)
        self._status = status
        self.calls = 0

    def stream(
        self,
        requests: Iterator[prediction_pb2.PredictStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[prediction_pb2.PredictStreamResponse]:
        self.calls += 1
        left = self._answered.pop(0) if self._answered else None
        if left == 0:
            context.abort(self._status, "stopping")
        for request in requests:
            yield answer_to(request)
            if left is not None:
                left -= 1
                if left == 0:
                    context.abort(self._status, "stopping")


def blocking_stream(target: str, batches: Iterator[npt.NDArray[np.uint8]]) -> list[int]:
    with Client(target) as client:
        return [number_of(answer) for answer in client.predict_stream(batches)]


def asynchronous_stream(target: str, batches: Iterator[npt.NDArray[np.uint8]]) -> list[int]:
    async def each() -> AsyncIterator[npt.NDArray[np.uint8]]:
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield batch

    async def run() -> list[int]:
        async with AsyncClient(target) as client:
            return [number_of(answer) async for answer in client.predict_stream(each())]

    return asyncio.run(run())


both_kinds = pytest.mark.parametrize("stream", [blocking_stream, asynchronous_stream])


@both_kinds
@pytest.mark.parametrize(
    ("answered", "status"),
    [
        ((7,), grpc.StatusCode.UNAVAILABLE),
        ((0, 0), grpc.StatusCode.UNAVAILABLE),
        ((1, 0, 5, 16, 17), grpc.StatusCode.UNAVAILABLE),
        ((COUNT,), grpc.StatusCode.UNAVAILABLE),  # after the last answer, before the end
        ((9,), grpc.StatusCode.CANCELLED),
    ],
    ids=["once", "before-any", "often", "at-the-end", "cancelled"],
)
def test_a_stream_goes_on_after_the_last_answer_without_a_loss_or_a_repetition(
    serve: Callable[..., str],
    answered: tuple[int, ...],
    status: grpc.StatusCode,
    stream: Callable[..., list[int]],
) -> None:
    server = Breaking(*answered, status=status)
    assert stream(serve(PredictStream=server.stream), numbered()) == list(range(COUNT))
    assert server.calls == len(answered) + 1


@both_kinds
def test_a_call_that_breaks_while_the_next_batch_is_waited_for_loses_none(
    serve: Callable[..., str], stream: Callable[..., list[int]]
) -> None:
    is_broken = threading.Event()

    def break_once(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield answer_to(next(requests))
        if not is_broken.is_set():
            is_broken.set()
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")
        for request in requests:
            yield answer_to(request)

    def batches() -> Iterator[npt.NDArray[np.uint8]]:
        for number, batch in enumerate(numbered(9)):
            # The second is asked for by the first call, and sent by the call after it.
            assert number != 1 or is_broken.wait(WAIT_S)
            yield batch

    assert stream(serve(PredictStream=break_once), batches()) == list(range(9))


@both_kinds
def test_a_stream_goes_on_whose_connection_is_lost_silently(
    models: Path,
    tiny_models: None,
    stream: Callable[..., list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlpserve.client.channel._PING_AFTER_MS", QUICK_MS)
    monkeypatch.setattr("mlpserve.client.channel._PING_TIMEOUT_MS", QUICK_MS)
    monkeypatch.setattr(transport, "_MIN_PING_PERIOD_MS", QUICK_MS // 2)
    server = Server(ServerConfig(models=models, port=0))
    server.start()
    with ForgetfulProxy(server.port) as proxy:

        def batches() -> Iterator[npt.NDArray[np.uint8]]:
            for number in range(COUNT):
                if number == COUNT // 2:
                    assert proxy.forget() == 1
                yield np.full((1, 6), number, np.uint8)

        assert len(stream(proxy.address, batches())) == COUNT
        assert proxy.accepted == 2
    server.stop()


@both_kinds
def test_a_stream_outlasts_a_server_that_is_started_again(
    models: Path, tiny_models: None, stream: Callable[..., list[int]]
) -> None:
    servers = [Server(ServerConfig(models=models, port=0, stop_grace_s=0.0))]
    servers[0].start()
    port = servers[0].port

    def batches() -> Iterator[npt.NDArray[np.uint8]]:
        for number in range(COUNT):
            if number == COUNT // 2:
                servers[0].stop()
                servers.append(Server(ServerConfig(models=models, port=port)))
                servers[1].start()
            yield np.full((1, 6), number, np.uint8)

    assert len(stream(servers[0].address, batches())) == COUNT
    servers[1].stop()


@pytest.mark.exhaustive
@both_kinds
def test_streams_that_break_at_random_lose_and_repeat_nothing(
    serve: Callable[..., str], stream: Callable[..., list[int]]
) -> None:
    rng = random.Random(5)  # noqa: S311 - no secret

    def flaky(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            yield answer_to(request)
            if rng.random() < 0.1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")

    target = serve(PredictStream=flaky)
    with ThreadPoolExecutor(4) as callers:
        for found in callers.map(lambda _: stream(target, numbered(200)), range(40)):
            assert found == list(range(200))
