"""Errors on the way and at the server, and the exceptions that callers get for them."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.client import (
    Client,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    ServerFaultError,
    TimeoutExceededError,
    UnauthenticatedError,
    UnavailableError,
)
from mlpserve.server.inference import registry
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2

WAIT_S = 20.0
IMAGES = np.zeros((3, 4), np.uint8)
MANY_IMAGES = np.zeros((2000, 4), np.uint8)  # more than one request
NOT_SERVER_FAULTS = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "RESOURCE_EXHAUSTED": InvalidRequestError,
    "NOT_FOUND": NotFoundError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": TimeoutExceededError,
}
CALLS: dict[str, Callable[[Client], object]] = {
    "predict": lambda client: client.predict(IMAGES),
    "predict-stream": lambda client: list(client.predict_stream([IMAGES])),
    "model": lambda client: client.model(),
    "models": lambda client: client.models(),
}

every_call = pytest.mark.parametrize("call", list(CALLS.values()), ids=list(CALLS))


def answer(count: int, *, version: int = 1, **fields: bytes) -> prediction_pb2.PredictResponse:
    """Return a good answer of two classes, but for the given fields."""
    parts: dict[str, Any] = {"probabilities": bytes(8 * count), "labels": bytes(4 * count)} | fields
    return prediction_pb2.PredictResponse(model_name="m", model_version=version, **parts)


def everywhere(handler: Callable[[Any, grpc.ServicerContext], Any]) -> dict[str, Any]:
    """Return one function for all rpcs."""

    def stream(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield handler(next(requests), context)

    return {
        "Predict": handler,
        "PredictStream": stream,
        "GetModel": handler,
        "ListModels": handler,
    }


@every_call
@pytest.mark.parametrize(
    "status",
    [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK],
    ids=lambda status: status.name,
)
def test_every_status_becomes_an_exception_of_the_clients_own_with_its_cause(
    serve: Callable[..., str], status: grpc.StatusCode, call: Callable[[Client], object]
) -> None:
    def refuse(request: Any, context: grpc.ServicerContext) -> None:
        context.abort(status, "the server's sentence")

    target = serve(**everywhere(refuse))
    with Client(target) as client, pytest.raises(ClientError) as caught:
        call(client)
    assert type(caught.value) is NOT_SERVER_FAULTS.get(status.name, ServerFaultError)
    assert str(caught.value) == f"{target}: {status.name}: the server's sentence"
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert caught.value.__cause__.code() is status


@pytest.mark.parametrize("status", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED], ids=str)
def test_a_later_part_of_a_large_call_that_fails_fails_the_call(
    serve: Callable[..., str], status: grpc.StatusCode
) -> None:
    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        if request.model_version:
            context.abort(status, "gone meanwhile")
        return answer(request.images.count)

    with (
        Client(serve(Predict=predict)) as client,
        pytest.raises(ClientError, match=f"{status.name}: gone meanwhile") as caught,
    ):
        client.predict(MANY_IMAGES)
    assert type(caught.value) is NOT_SERVER_FAULTS.get(status.name, ServerFaultError)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@every_call
def test_a_server_that_accepts_and_is_silent_is_given_up_after_the_timeout(
    call: Callable[[Client], object],
) -> None:
    started = time.monotonic()
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2) as client,
        pytest.raises(TimeoutExceededError, match="DEADLINE_EXCEEDED"),
    ):
        call(client)
    assert 0.15 < time.monotonic() - started < WAIT_S


@every_call
def test_a_server_that_takes_too_long_is_given_up_after_the_timeout(
    serve: Callable[..., str], call: Callable[[Client], object]
) -> None:
    ended = threading.Event()

    def slow(request: Any, context: grpc.ServicerContext) -> None:
        ended.wait(WAIT_S)
        context.abort(grpc.StatusCode.CANCELLED, "nobody waits for this")

    with Client(serve(**everywhere(slow)), timeout_s=0.2) as client:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="DEADLINE_EXCEEDED"):
            call(client)
        assert 0.15 < time.monotonic() - started < WAIT_S
    ended.set()


def test_a_timeout_holds_for_all_parts_of_a_large_call_together(
    serve: Callable[..., str],
) -> None:
    ended = threading.Event()

    def slow(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        ended.wait(0.2)
        return answer(request.images.count)

    # Each part alone would be in time.
    with Client(serve(Predict=slow), timeout_s=WAIT_S) as client:
        with pytest.raises(TimeoutExceededError):
            client.predict(np.zeros((20_000, 4), np.uint8), timeout_s=0.3)
        ended.set()
        assert len(client.predict(np.zeros((20_000, 4), np.uint8))) == 20_000


def test_where_nothing_listens_the_caller_learns_it_in_about_a_second() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen, so that nobody else can
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with Client(target) as client, pytest.raises(UnavailableError, match=target):
            client.predict(IMAGES)
        assert time.monotonic() - started < WAIT_S


# The last is more than gRPC itself would keep for another attempt.
@pytest.mark.parametrize("count", [3, 1024])
def test_a_call_that_finds_the_server_unavailable_twice_succeeds_with_the_third_try(
    serve: Callable[..., str], count: int
) -> None:
    tries: list[str] = []

    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        tries.append("predict")
        if len(tries) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return answer(request.images.count)

    with Client(serve(Predict=predict)) as client:
        assert len(client.predict(np.zeros((count, 784), np.uint8))) == count
    assert len(tries) == 3


def test_calls_wait_for_a_server_that_is_started_again(models: Path, tiny_models: None) -> None:
    server = Server(ServerConfig(models=models, port=0))
    server.start()
    with Client(server.address) as client, ThreadPoolExecutor(8) as callers:
        images = np.zeros((1000, 6), np.uint8)
        client.predict(images)
        server.stop()
        waiting = [callers.submit(client.predict, images) for _ in range(8)]
        again = Server(ServerConfig(models=models, port=server.port))
        again.start()
        assert [len(call.result()) for call in waiting] == [1000] * 8
        again.stop()


@pytest.mark.parametrize(
    "target",
    [
        *("", "localhost", "localhost:", ":50051", "localhost:0", "localhost:99999", "a:b"),
        *("::1:50051", "http://localhost:50051", " localhost:50051", "local host:1", "[::1:50051"),
    ],
)
def test_a_target_that_is_no_host_and_port_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequestError, match="target: expected HOST:PORT, an IPv6"):
        Client(target)


@pytest.mark.parametrize("status", ["INTERNAL", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNKNOWN"])
def test_what_would_fail_again_is_not_tried_again(serve: Callable[..., str], status: str) -> None:
    tries: list[str] = []

    def refuse(request: Any, context: grpc.ServicerContext) -> None:
        tries.append(status)
        context.abort(grpc.StatusCode[status], "no")

    target = serve(**everywhere(refuse))
    for call in CALLS.values():
        with Client(target) as client, pytest.raises(ClientError):
            call(client)
    assert len(tries) == len(CALLS)


def test_a_fault_of_the_server_is_told_without_its_inside(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret of /etc/shadow")

    monkeypatch.setattr(registry.Registry, "find", broken)
    with pytest.raises(ServerFaultError) as caught:
        client.predict(np.zeros((1, 6), np.uint8))
    assert str(caught.value).endswith(": INTERNAL: internal error; the server's log has the cause")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": b""}, "expected 12 bytes of labels of 3 images, .* got 0 and 24"),
        ({"labels": bytes(8)}, "got 8 and 24"),
        ({"labels": bytes(16)}, "got 16 and 24"),
        ({"labels": bytes(11)}, "got 11 and 24"),
        ({"probabilities": b""}, "got 12 and 0"),
        ({"probabilities": bytes(23)}, "got 12 and 23"),
        ({"probabilities": bytes(28)}, "got 12 and 28"),
        ({"labels": bytes(8) + b"\2\0\0\0"}, "expected labels below 2, .* got 0 to 2"),
        ({"labels": bytes(8) + b"\xff" * 4}, "expected labels below 2, .* got -1 to 0"),
    ],
    ids=str,
)
def test_an_answer_that_does_not_fit_its_request_is_a_fault_of_the_server(
    serve: Callable[..., str], fields: dict[str, Any], message: str
) -> None:
    def predict(request: Any, context: grpc.ServicerContext) -> prediction_pb2.PredictResponse:
        return answer(3, **fields)

    def stream(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        next(requests)  # an answer to nothing would be another fault
        yield answer(3, **fields)

    with Client(serve(Predict=predict, PredictStream=stream)) as client:
        with pytest.raises(ServerFaultError, match=f"answer: .*{message}"):
            client.predict(IMAGES)
        with pytest.raises(ServerFaultError, match=f"answer: .*{message}"):
            list(client.predict_stream([IMAGES]))


@pytest.mark.parametrize(
    "second",
    [
        lambda count: answer(count, version=2),
        lambda count: answer(count, probabilities=bytes(12 * count)),
        lambda count: answer(count, labels=b""),
    ],
    ids=["version", "classes", "size"],
)
def test_parts_of_a_large_call_that_do_not_fit_together_are_a_fault_of_the_server(
    serve: Callable[..., str], second: Callable[[int], prediction_pb2.PredictResponse]
) -> None:
    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        count = request.images.count
        return second(count) if request.model_version else answer(count)

    with (
        Client(serve(Predict=predict)) as client,
        pytest.raises(ServerFaultError, match="answer: expected "),
    ):
        client.predict(MANY_IMAGES)


def test_a_model_without_a_name_is_a_fault_of_the_server(serve: Callable[..., str]) -> None:
    def get(request: Any, context: grpc.ServicerContext) -> prediction_pb2.GetModelResponse:
        return prediction_pb2.GetModelResponse()

    with (
        Client(serve(GetModel=get)) as client,
        pytest.raises(ServerFaultError, match="answer: expected a model, got one without"),
    ):
        client.model()


def test_bytes_that_are_no_message_are_a_fault_of_the_server() -> None:
    def predict(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"\xff\xff\xff"

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(predict)
    service = "mlpserve.v1.PredictionService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"Predict": method})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(ServerFaultError):
        client.predict(IMAGES)
    server.stop(None).wait()
