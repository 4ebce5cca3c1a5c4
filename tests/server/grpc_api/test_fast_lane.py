"""The fast lane, and the conditions under which it steps aside."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import _server as grpcio

from mlpserve.server.grpc_api.fast_lane import lane
from mlpserve.server.grpc_api.fast_lane.calls import HotCall
from mlpserve.server.grpc_api.fast_lane.self_test import why_unusable
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

REPOSITORY = Path(__file__).parents[3]
TIMEOUT_S = 60.0


def answers(server: Server) -> bool:
    image = prediction_pb2.ImageBatch(
        count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
    )
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        request = prediction_pb2.PredictRequest(images=image)
        return stub.Predict(request, timeout=TIMEOUT_S).model_version == 2


@pytest.fixture
def started(models: Path, tiny_models: None) -> Callable[[], Server]:
    def start() -> Server:
        server = Server(ServerConfig(models=models, port=0))
        server.start()
        return server

    return start


def test_a_release_that_is_on_the_list_is_answered_by_the_fast_lane(
    started: Callable[[], Server],
) -> None:
    server = started()
    assert server.adapter == "the fast lane"
    assert answers(server)
    server.stop()


@pytest.mark.parametrize(("processors", "expected"), [({0}, True), ({0, 1}, False)])
def test_the_threads_that_read_go_first_where_they_share_the_only_processor(
    started: Callable[[], Server],
    monkeypatch: pytest.MonkeyPatch,
    processors: set[int],
    expected: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    given_way: list[bool] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: processors)
    monkeypatch.setattr(os, "sched_yield", lambda: given_way.append(True))
    server = started()
    assert answers(server)
    server.stop()
    assert bool(given_way) == expected


def test_a_later_patch_of_a_series_on_the_list_is_answered_by_the_fast_lane(
    started: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    series = grpc.__version__.rpartition(".")[0]
    monkeypatch.setattr(lane, "TESTED_RELEASES", frozenset({f"{series}.0"}))
    server = started()
    assert server.adapter == "the fast lane"
    server.stop()


def test_a_release_that_is_not_on_the_list_is_answered_by_the_public_api(
    started: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "TESTED_RELEASES", frozenset({"0.1.0"}))
    server = started()
    expected = (
        "the public gRPC API, not the fast lane: "
        f"it has not been tested with grpcio {grpc.__version__}"
    )
    assert server.adapter == expected
    assert answers(server)
    server.stop()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda call, _: call._end(0, b""), "its self-test failed: "),  # noqa: SLF001
        (
            lambda call, _: call.fail(grpc.StatusCode.INTERNAL, "broken"),
            "its self-test failed: _MultiThreadedRendezvous: ",
        ),
    ],
    ids=["no message", "a failure"],
)
def test_a_lane_that_fails_its_self_test_steps_aside(
    started: Callable[[], Server],
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[HotCall, bytes], None],
    reason: str,
) -> None:
    monkeypatch.setattr(HotCall, "answer", answer)
    problem = why_unusable()
    assert problem is not None
    assert problem.startswith(reason)
    server = started()
    assert "the public gRPC API, not the fast lane: its self-test failed" in server.adapter
    assert answers(server)
    server.stop()


def test_a_fault_in_the_lane_is_logged_and_later_calls_are_answered(
    started: Callable[[], Server],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = started()
    with monkeypatch.context() as broken:
        broken.setattr(HotCall, "start", lambda _: 1 / 0)
        with grpc.insecure_channel(server.address) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            call = stub.Predict.future(prediction_pb2.PredictRequest(), timeout=TIMEOUT_S)
            deadline_s = time.monotonic() + TIMEOUT_S
            while "a call failed before it could be answered" not in caplog.text:
                assert time.monotonic() < deadline_s
            call.cancel()
    assert answers(server)
    server.stop()


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_fault_of_grpcio_ends_one_call_and_later_ones_are_answered(
    started: Callable[[], Server], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    server = started()
    calls = grpcio._handle_call  # noqa: SLF001 - what is to fail
    errors = [error] * 3

    def failing(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return calls(*arguments)

    monkeypatch.setattr(grpcio, "_handle_call", failing)
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        asked = prediction_pb2.ListModelsRequest()
        codes = [stub.ListModels.future(asked, timeout=TIMEOUT_S).code() for _ in range(3)]
        assert stub.ListModels(asked, timeout=TIMEOUT_S).models
    is_memory = isinstance(error, MemoryError)
    code = grpc.StatusCode.UNAVAILABLE if is_memory else grpc.StatusCode.INTERNAL
    assert codes == [code] * 3
    assert answers(server)
    server.stop()


@pytest.mark.parametrize("file", ["constraints.txt", "tests/oldest-constraints.txt"])
def test_the_releases_of_the_images_and_of_the_oldest_tests_are_on_the_list(file: str) -> None:
    found = re.search(r"^grpcio==(\S+)$", (REPOSITORY / file).read_text(), re.MULTILINE)
    assert found is not None
    assert found[1] in lane.TESTED_RELEASES
