"""Connections that the transport closes by itself."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Event
from typing import Final

import grpc
import pytest
from hyperframe.frame import PingFrame

from mlpserve.server.grpc_api import transport
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from raw_http2 import OK, PREDICT, PREDICT_STREAM, RawHttp2, grpc_message
from steady_load import REQUEST

TIMEOUT_S: Final = 60.0
SHORT_MS: Final = 300
CONNECTIONS: Final = 4


def test_who_answers_no_ping_is_closed(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_PING_AFTER_MS", SHORT_MS)
    monkeypatch.setattr(transport, "_PING_TIMEOUT_MS", SHORT_MS)
    with RawHttp2(start_server().address) as connection:
        connection.receive(timeout_s=TIMEOUT_S)
        assert connection.is_closed
        assert connection.goaway is not None
        assert connection.goaway[1] == "ping_timeout"


def test_a_connection_without_calls_is_closed_after_a_while(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_MAX_IDLE_MS", SHORT_MS)
    with RawHttp2(start_server().address) as connection:
        connection.take_note()
        connection.send(*connection.call(PREDICT, grpc_message(REQUEST.SerializeToString())))
        connection.receive(timeout_s=TIMEOUT_S)
        assert (OK, "") in connection.statuses
        assert connection.goaway is not None
        assert "idle" in connection.goaway[1]


def test_who_takes_no_note_of_the_limits_is_closed(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_SETTINGS_TIMEOUT_MS", SHORT_MS)
    with RawHttp2(start_server().address) as connection:
        connection.send(PingFrame(opaque_data=b"go on..."))
        connection.discard(timeout_s=TIMEOUT_S)
        assert connection.is_closed


def test_who_pings_every_ten_seconds_keeps_a_quiet_stream(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transport._MIN_PING_PERIOD_MS < 10_000  # noqa: SLF001
    monkeypatch.setattr(transport, "_MIN_PING_PERIOD_MS", SHORT_MS // 10)
    with RawHttp2(start_server().address) as connection:
        connection.take_note()
        connection.send(connection.headers(PREDICT_STREAM))
        for _ in range(5):  # gRPC would close with the third that is too early
            connection.send(PingFrame(opaque_data=b"alive..."))
            connection.receive(timeout_s=SHORT_MS / 1000)
        assert connection.goaway is None
        assert not connection.is_closed


@pytest.mark.parametrize(
    "policy",  # the second is our client's
    [pytest.param("pick_first", marks=pytest.mark.exhaustive), "round_robin"],
)
def test_no_call_fails_where_connections_grow_old_and_streams_go_on(
    start_server: Callable[..., Server], policy: str
) -> None:
    server = start_server(max_connection_age_s=SHORT_MS / 1000)
    ended, states = Event(), Counter[grpc.ChannelConnectivity]()

    def requests() -> Iterator[prediction_pb2.PredictStreamRequest]:
        yield prediction_pb2.PredictStreamRequest(images=REQUEST.images)
        ended.wait(TIMEOUT_S)
        yield prediction_pb2.PredictStreamRequest(images=REQUEST.images)

    # A client without a retry policy. gRPC itself sends a call that the server never saw anew.
    balancing = json.dumps({"loadBalancingConfig": [{policy: {}}]})
    with grpc.insecure_channel(server.address, [("grpc.service_config", balancing)]) as channel:
        channel.subscribe(lambda state: states.update([state]))
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        stream = stub.PredictStream(requests(), timeout=TIMEOUT_S)
        assert next(stream).model_version
        deadline_s = time.monotonic() + TIMEOUT_S
        while states[grpc.ChannelConnectivity.READY] < CONNECTIONS:
            assert time.monotonic() < deadline_s
            assert stub.Predict(REQUEST, timeout=TIMEOUT_S).model_version
        ended.set()
        assert next(stream).model_version
