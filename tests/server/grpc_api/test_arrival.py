"""Calls whose request never comes, or comes late: whom they keep waiting, and how they end."""

import time
from collections.abc import Callable
from typing import Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import DataFrame

from mlpserve.server.grpc_api import health, late_calls
from mlpserve.server.grpc_api.fast_lane import lane
from mlpserve.server.grpc_api.health import WATCHES_PER_CONNECTION
from mlpserve.server.server import Server
from mlpserve.server.telemetry import metrics
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from raw_http2 import MODEL_INFER, OK, PREDICT, PREDICT_STREAM, RawHttp2, grpc_message
from steady_load import REQUEST

StartServer = Callable[..., Server]
TIMEOUT_S: Final = 60.0
CHECK: Final = "/grpc.health.v1.Health/Check"
WATCH: Final = "/grpc.health.v1.Health/Watch"
LIST_MODELS: Final = "/mlpserve.v1.PredictionService/ListModels"
REFLECT: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
UNARY: Final = (CHECK, LIST_MODELS, PREDICT, MODEL_INFER)
ALL: Final = (*UNARY, WATCH, PREDICT_STREAM, REFLECT)
SILENT: Final = 20  # of each, more than there are threads
TOO_LATE: Final = "4"
UNIMPLEMENTED: Final = "12"


def ask_all(server: Server) -> None:
    """Ask for health, predict over a stream and by itself, and list models."""
    message = prediction_pb2.PredictRequest.FromString(REQUEST.SerializeToString())
    with grpc.insecure_channel(server.address) as channel:
        checks = health_pb2_grpc.HealthStub(channel)
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        asked = health_pb2.HealthCheckRequest()
        assert (
            checks.Check(asked, timeout=TIMEOUT_S).status == health_pb2.HealthCheckResponse.SERVING
        )
        assert stub.Predict(message, timeout=TIMEOUT_S).model_version
        assert stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S).models
        streamed = prediction_pb2.PredictStreamRequest(images=message.images)
        assert len(list(stub.PredictStream(iter([streamed]), timeout=TIMEOUT_S))) == 1
        assert next(checks.Watch(asked, timeout=TIMEOUT_S)).status


def test_calls_that_send_no_request_keep_nobody_waiting(start_server: StartServer) -> None:
    server = start_server()
    with RawHttp2(server.address) as connection:
        connection.take_note()
        connection.send(*(connection.headers(path) for path in ALL for _ in range(SILENT)))
        ask_all(server)
        connection.receive(timeout_s=0.01)
        assert connection.ended == 0  # they are still open


def test_calls_whose_request_does_not_come_in_time_end_and_give_their_places_back(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_calls, "ARRIVAL_TIMEOUT_S", 0.2)
    server = start_server(max_concurrent_requests=len(UNARY) - 1)
    for _ in range(2):
        with RawHttp2(server.address) as connection:
            connection.take_note()
            for path in UNARY:
                headers = connection.headers(path)
                # Half a message is no request.
                connection.send(
                    headers, DataFrame(headers.stream_id, grpc_message(b"", announced=9))
                )
            connection.receive(ends=len(UNARY))
            late = connection.statuses[TOO_LATE, "the request did not arrive in 0.2 s"]
            assert late >= len(UNARY) - 2
    ask_all(server)


@pytest.mark.parametrize("path", [LIST_MODELS, PREDICT])
def test_a_call_whose_request_does_not_come_in_time_is_counted(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(late_calls, "ARRIVAL_TIMEOUT_S", 0.2)
    server = start_server()
    with RawHttp2(server.address) as connection:
        connection.take_note()
        connection.send(connection.headers(path))
        connection.receive(ends=1)
    counted = server.metrics("server")[metrics.REQUESTS.name]
    assert ([path.rpartition("/")[2], "", "", "DEADLINE_EXCEEDED"], 1) in counted


def test_a_watch_whose_request_does_not_come_in_time_ends(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_calls, "ARRIVAL_TIMEOUT_S", 0.2)
    with RawHttp2(start_server().address) as connection:
        connection.take_note()
        connection.send(connection.headers(WATCH))
        connection.receive(ends=1)
        assert set(connection.statuses) == {(TOO_LATE, "the request did not arrive in 0.2 s")}


def test_a_request_that_comes_later_than_its_headers_is_answered(start_server: StartServer) -> None:
    with RawHttp2(start_server().address) as connection:
        connection.take_note()
        calls = [connection.call(PREDICT, grpc_message(REQUEST.SerializeToString()))]
        calls += [connection.call(path, grpc_message(b"")) for path in (CHECK, LIST_MODELS)]
        calls.append(connection.call(PREDICT_STREAM, grpc_message(b"")))
        connection.send(*(frames[0] for frames in calls))
        connection.receive(timeout_s=0.05)
        assert connection.ended == 0
        connection.send(*(frame for frames in calls for frame in frames[1:]))
        connection.receive(ends=len(calls))
        assert connection.statuses[OK, ""] == len(calls) - 1


@pytest.mark.parametrize("message", [b"", grpc_message(b"")], ids=["headers only", "a request"])
def test_calls_whose_caller_goes_are_forgotten(start_server: StartServer, message: bytes) -> None:
    server = start_server()
    with RawHttp2(server.address) as connection:
        connection.take_note()
        for path in ALL:
            for _ in range(SILENT):
                frames = connection.call(path, message) if message else [connection.headers(path)]
                connection.send(*frames)
    ask_all(server)
    deadline_s = time.monotonic() + TIMEOUT_S
    while server._server._state.rpc_states:  # type: ignore[attr-defined] # noqa: SLF001
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize("path", UNARY)
def test_a_call_that_ends_without_a_request_is_told_so_at_once(
    start_server: StartServer, path: str
) -> None:
    with RawHttp2(start_server().address) as connection:
        connection.take_note()
        connection.send(connection.headers(path, ends=True))
        connection.receive(ends=1)
        assert set(connection.statuses) == {(UNIMPLEMENTED, "expected exactly one request message")}


def test_watches_are_bounded_and_shared_by_connection(start_server: StartServer) -> None:
    connections = 256
    server = start_server(max_connections=connections)
    asked = grpc_message(health_pb2.HealthCheckRequest().SerializeToString())
    with RawHttp2(server.address) as connection:
        connection.take_note()
        for _ in range(WATCHES_PER_CONNECTION * connections // 2 + 8):
            connection.send(*connection.call(WATCH, asked))
        connection.receive(ends=8)
        assert {code for code, _ in connection.statuses} == {UNIMPLEMENTED}
        ask_all(server)


def test_clients_that_check_health_call_a_server_that_has_too_many_watches(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "WATCHES_PER_CONNECTION", 1)
    server = start_server(max_connections=3)
    asked = grpc_message(health_pb2.HealthCheckRequest().SerializeToString())
    config = '{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}'
    options = [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)]
    with RawHttp2(server.address) as first, RawHttp2(server.address) as second:
        for connection in (first, first, second):
            connection.take_note()
            connection.send(*connection.call(WATCH, asked))
            connection.receive(timeout_s=0.1)
        with grpc.insecure_channel(server.address, options) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            assert stub.Predict(REQUEST, timeout=TIMEOUT_S).model_version
            with pytest.raises(grpc.RpcError, match="watches: the most at once"):
                next(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()))


@pytest.mark.parametrize("path", [CHECK, WATCH])
def test_calls_of_health_whose_request_does_not_come_are_bounded_and_shared_by_connection(
    start_server: StartServer, path: str
) -> None:
    connections = 20
    server = start_server(max_connections=connections)
    with RawHttp2(server.address) as connection:
        connection.take_note()
        connection.send(*(connection.headers(path) for _ in range(connections)))
        connection.receive(ends=connections // 2 - 1)
        ask_all(server)


def test_watches_end_at_once_when_the_server_stops(start_server: StartServer) -> None:
    server = start_server()
    status = health_pb2.HealthCheckResponse
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(200)]
        assert {next(watch).status for watch in watches} == {status.SERVING}
        began_s = time.monotonic()
        server.stop()
        assert time.monotonic() - began_s < server._config.stop_grace_s / 2  # noqa: SLF001
        ends = {tuple(told.status for told in watch) for watch in watches}
        assert ends == {(status.NOT_SERVING,)}


def test_a_watch_that_is_not_read_keeps_no_change_of_health_waiting(
    start_server: StartServer,
) -> None:
    server = start_server(stop_grace_s=0.1)
    asked = grpc_message(health_pb2.HealthCheckRequest().SerializeToString())
    window_of_nothing = {4: 0}
    with RawHttp2(server.address, window_of_nothing) as connection:
        connection.take_note()
        connection.send(*connection.call(WATCH, asked))
        ask_all(server)  # by now it is seen
        for _ in range(100):
            server.show_health()
        ask_all(server)


@pytest.mark.parametrize("adapter", ["public API"])
def test_with_a_release_of_grpcio_that_was_not_tested_calls_wait_in_threads_but_not_health(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "TESTED_RELEASES", frozenset[str]())
    server = start_server()
    ask_all(server)
    with RawHttp2(server.address) as connection:
        connection.take_note()
        connection.send(*(connection.headers(LIST_MODELS) for _ in range(SILENT)))
        with grpc.insecure_channel(server.address) as channel:
            checks = health_pb2_grpc.HealthStub(channel)
            assert checks.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status
