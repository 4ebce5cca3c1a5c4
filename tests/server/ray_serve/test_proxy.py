"""What a proxy of Ray Serve runs of ours, in a server that takes handlers as Ray's does."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest

from mlpserve.server.ray_serve import add_services_to_server
from mlpserve.server.ray_serve.proxy import RPCS

PREDICT = "/mlpserve.v1.PredictionService/Predict"
STREAM = "/mlpserve.v1.PredictionService/PredictStream"
OF_A_REPLICA = ("mlpserve-request-id", "7")
TIMEOUT_S = 20.0
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


Replica = Callable[[Any, Any], bytes]


class Proxy:
    """Puts its own handlers in the place of those of a service; source: Ray's gRPCGenericServer."""

    def __init__(self, server: grpc.aio.Server, replica: Replica) -> None:
        self._server = server
        self._replica = replica
        self.paths: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        replica = self._replica  # with more of `self` in them, handlers would keep the server

        async def unary(request: Any, context: Any) -> bytes:
            return replica(request, context)

        async def stream(requests: Any, context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield replica(request, context)

        (service,) = handlers
        self.paths += service._method_handlers  # noqa: SLF001 - as Ray does
        service._method_handlers = {  # noqa: SLF001
            path: handler._replace(
                response_serializer=None, unary_unary=unary, stream_stream=stream
            )
            for path, handler in service._method_handlers.items()  # noqa: SLF001
        }
        self._server.add_generic_rpc_handlers(handlers)


Ask = Callable[..., tuple[list[bytes], grpc.StatusCode, str, dict[str, str]]]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return one event loop for all tests: a server that is forgotten still needs its own."""
    running = asyncio.new_event_loop()
    yield running
    gc.collect()
    running.run_until_complete(asyncio.sleep(0))
    running.close()


@pytest.fixture
def ask(loop: asyncio.AbstractEventLoop) -> Ask:
    """Return a function that makes a call, and returns responses, status, message and trailers."""

    async def asked(
        replica: Replica, requests: tuple[bytes, ...], path: str, *, retries: bool
    ) -> Any:
        server = grpc.aio.server()
        add_services_to_server(None, Proxy(server, replica))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        responses = []
        options = [("grpc.service_config", json.dumps(RETRIES))] if retries else []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            caller: Any = channel.stream_stream(path)
            call = caller(iter(requests), timeout=TIMEOUT_S)
            with suppress(grpc.aio.AioRpcError):
                responses = [response async for response in call]
            trailers: Any = await call.trailing_metadata()
            found = responses, await call.code(), await call.details(), dict(tuple(trailers))
        await server.stop(None)
        return found

    def run(
        replica: Replica, *requests: bytes, path: str = PREDICT, retries: bool = False
    ) -> tuple[list[bytes], grpc.StatusCode, str, dict[str, str]]:
        found: tuple[list[bytes], grpc.StatusCode, str, dict[str, str]]
        found = loop.run_until_complete(asked(replica, requests, path, retries=retries))
        return found

    return run


def ending(code: grpc.StatusCode, details: str, *trailers: tuple[str, str]) -> Any:
    """Return a replica whose answers are empty, with this status."""

    def replica(_: Any, context: Any) -> bytes:
        context.set_code(code)
        context.set_details(details)
        context.set_trailing_metadata(trailers)
        return b""

    return replica


def test_a_request_goes_to_a_replica_as_bytes_with_the_time_that_is_left(ask: Ask) -> None:
    came: list[Any] = []

    def replica(request: Any, _: Any) -> bytes:
        came.append(request)
        return b"answer"

    assert ask(replica, b"\xff no message")[:2] == ([b"answer"], grpc.StatusCode.OK)
    ((data, remaining_s),) = came
    assert data == b"\xff no message"
    assert 0 < remaining_s <= TIMEOUT_S + 0.1  # gRPC sends it in tenths of a second, rounded up


def test_bytes_go_to_and_fro_in_streams(ask: Ask) -> None:
    found = ask(lambda request, _: request * 2, b"a", b"b", path=STREAM)
    assert found[:2] == ([b"aa", b"bb"], grpc.StatusCode.OK)


@pytest.mark.parametrize("path", [PREDICT, STREAM])
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (grpc.StatusCode.INTERNAL, "the replica that had this request did not answer it"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "the server is busy: too many requests wait"),
        (grpc.StatusCode.NOT_FOUND, "no application is ready here for this request"),
    ],
)
def test_what_ray_says_of_itself_is_what_clients_try_again_after(
    ask: Ask, code: grpc.StatusCode, sentence: str, path: str
) -> None:
    responses, found, details, trailers = ask(ending(code, "first\nsecond"), b"", path=path)
    assert (responses, found) == ([], grpc.StatusCode.UNAVAILABLE)
    assert details == f"{sentence}; try again later: first"
    assert trailers["grpc-retry-pushback-ms"] == "200"


@pytest.mark.parametrize("path", [PREDICT, STREAM])
def test_what_a_replica_says_is_passed_on(ask: Ask, path: str) -> None:
    for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND):
        found = ask(ending(code, "its own", OF_A_REPLICA), b"", path=path)
        assert found == ([], code, "its own", dict([OF_A_REPLICA]))


def test_who_is_told_to_try_again_does(ask: Ask) -> None:
    asked: list[Any] = []

    def replica(request: Any, context: Any) -> bytes:
        asked.append(request)
        if len(asked) < 3:
            context.set_code(grpc.StatusCode.INTERNAL)
            return b""
        return b"answer"

    assert ask(replica, b"", retries=True)[:2] == ([b"answer"], grpc.StatusCode.OK)
    assert len(asked) == 3


def test_each_rpc_has_a_name_of_its_own_because_ray_calls_methods_by_it() -> None:
    names = [rpc.name for rpc in RPCS]
    assert len(set(names)) == len(names)
    assert {"Predict", "PredictStream", "Explain", "ModelInfer", "ServerLive", "Check"} <= {*names}
    assert "Watch" not in names
