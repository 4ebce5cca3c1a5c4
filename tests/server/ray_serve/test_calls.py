"""Calls of a replica: statuses, cancellation and streams, with what Ray brings of a call."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from mlpserve.model.compiled import CompiledModel
from mlpserve.server.app import App
from mlpserve.server.grpc_api.interceptor import AdmissionInterceptor
from mlpserve.server.models.generations import LocalPool
from mlpserve.server.models.lifecycle import Lifecycle
from mlpserve.server.ray_serve.calls import Call, Calls
from mlpserve.server.settings.config import MANUAL, ServerConfig
from mlpserve.v1 import prediction_pb2 as pb

PREDICT = "/mlpserve.v1.PredictionService/Predict"
STREAM = "/mlpserve.v1.PredictionService/PredictStream"
TIMEOUT_S = 60.0
MAX_MESSAGE_BYTES = 1 << 20


class Context:
    """What Ray brings of a call, and is told of its end."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.metadata = metadata
        self.status: Any = None
        self.details = ""
        self.trailers: list[tuple[str, str]] = []

    def invocation_metadata(self) -> Any:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def set_code(self, code: Any) -> None:
        self.status = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, metadata: list[tuple[str, str]]) -> None:
        self.trailers = metadata


def request(count: int = 2) -> bytes:
    batch = pb.ImageBatch(count=count, data_type=pb.DATA_TYPE_UINT8, data=bytes(6 * count))
    return pb.PredictRequest(images=batch).SerializeToString()  # as bytes, a stream's is the same


@pytest.fixture
def start(models: Path, tiny_models: None) -> Iterator[Callable[..., Calls]]:
    started: list[Calls] = []

    def start_calls(**settings: Any) -> Calls:
        config = ServerConfig(models=models, reload=MANUAL, max_message_mb=1, **settings)
        pool = LocalPool(reproducible=False, activated=lambda: None)
        Lifecycle(config, pool).start()
        app = App(config, pool.generations, manager=None, totals=dict)
        interceptor = AdmissionInterceptor(
            app.admission, app.recorder, places_of_stream=4, knows_connections=True
        )
        calls = Calls(
            app.services(),
            interceptor,
            app.recorder,
            threads=config.request_threads,
            max_message_bytes=config.max_message_bytes,
        )
        started.append(calls)
        return calls

    yield start_calls
    for each in started:
        each.close()


def unary(calls: Calls, data: bytes, context: Context, path: str = PREDICT) -> bytes:
    found = asyncio.run(calls.unary(path, data, Call(context, TIMEOUT_S)))
    return found.SerializeToString()


def test_a_request_is_answered_as_bytes(start: Callable[..., Calls]) -> None:
    context = Context()
    found = pb.PredictResponse.FromString(unary(start(), request(), context))
    assert (found.model_name, found.model_version, len(found.labels)) == ("tiny", 2, 8)
    assert (context.status, context.details, context.trailers) == (None, "", [])


@pytest.mark.parametrize(
    ("path", "data", "status", "sentence"),
    [
        (PREDICT, b"\xff", "INVALID_ARGUMENT", "expected a mlpserve.v1.PredictRequest, got 1 byte"),
        (PREDICT, bytes(MAX_MESSAGE_BYTES + 1), "RESOURCE_EXHAUSTED", "send fewer images at once"),
        ("/mlpserve.v1.PredictionService/Learn", b"", "UNIMPLEMENTED", "Method not found!"),
    ],
)
def test_what_cannot_be_answered_has_its_status_sentence_and_id(
    start: Callable[..., Calls], path: str, data: bytes, status: str, sentence: str
) -> None:
    context = Context(("x-request-id", "seven"))
    assert unary(start(), data, context, path) == b""
    assert (context.status.name, sentence in context.details) == (status, True), context.details
    assert context.trailers == [("mlpserve-request-id", "seven")]


@pytest.mark.parametrize(
    ("fault", "status", "sentence"),
    [
        (MemoryError(), "UNAVAILABLE", "has not enough memory left"),
        (ValueError("secret"), "INTERNAL", "internal error; the server's log has the cause"),
    ],
)
def test_a_fault_shows_nothing_and_who_may_ask_again_is_told_when(
    start: Callable[..., Calls],
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    status: str,
    sentence: str,
) -> None:
    def classify(*_: object) -> None:
        raise fault

    calls, context = start(), Context()
    monkeypatch.setattr(CompiledModel, "classify", classify)
    unary(calls, request(), context)
    assert (context.status.name, sentence in context.details) == (status, True), context.details
    assert (("grpc-retry-pushback-ms", "200") in context.trailers) == (status == "UNAVAILABLE")


@pytest.mark.parametrize("token", ["", "Bearer wrong"])
def test_tokens_are_asked_for(start: Callable[..., Calls], tmp_path: Path, token: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"someone sha256:{'0' * 64}\n")
    context = Context(("authorization", token))
    unary(start(token_file=tokens), request(), context)
    assert context.status.name == "UNAUTHENTICATED"


def test_a_stream_is_answered_in_order_until_its_first_bad_batch(
    start: Callable[..., Calls],
) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for data in (request(1), request(2), b"\xff", request(3)):
            yield data

    async def responses() -> list[bytes]:
        stream = start().stream(STREAM, requests(), Call(context, None))
        return [response.SerializeToString() async for response in stream]

    context = Context()
    *good, last = asyncio.run(responses())
    assert [len(pb.PredictStreamResponse.FromString(each).labels) for each in good] == [4, 8]
    assert (last, context.status.name) == (b"", "INVALID_ARGUMENT")


def test_what_its_caller_gives_up_is_not_computed(
    start: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, passes, has_begun, may_go_on = start(), list[list[int]](), Event(), Event()
    classify = CompiledModel.classify

    def held(self: CompiledModel, batches: Any, workspace: Any) -> Any:
        passes.append([len(batch) for batch in batches])
        has_begun.set()
        assert may_go_on.wait(TIMEOUT_S)
        return classify(self, batches, workspace)

    async def program() -> bytes:
        def ask(count: int) -> "asyncio.Task[Any]":
            call = Call(Context(), TIMEOUT_S)
            return asyncio.create_task(calls.unary(PREDICT, request(count), call))

        first = ask(1)
        assert await asyncio.to_thread(has_begun.wait, TIMEOUT_S)
        given_up = [ask(2) for _ in range(3)]
        await asyncio.sleep(0)  # all have begun
        for each in given_up:
            each.cancel()
        await asyncio.wait(given_up)
        may_go_on.set()
        await first
        return (await ask(5)).SerializeToString()  # type: ignore[no-any-return]

    monkeypatch.setattr(CompiledModel, "classify", held)
    found = pb.PredictResponse.FromString(asyncio.run(program()))
    assert len(np.frombuffer(found.labels, "<i4")) == 5
    assert passes == [[1], [5]]


def test_a_stream_that_its_caller_leaves_ends_though_the_next_batch_never_comes(
    start: Callable[..., Calls],
) -> None:
    is_left = Event()

    async def requests() -> AsyncIterator[bytes]:
        yield request(1)
        try:
            await asyncio.Event().wait()
        finally:
            is_left.set()

    async def program() -> None:
        responses = start().stream(STREAM, requests(), Call(Context(), None))
        assert len((await anext(responses)).data) > 0
        waiting = asyncio.create_task(anext(responses))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await asyncio.to_thread(is_left.wait, TIMEOUT_S)

    asyncio.run(program())
