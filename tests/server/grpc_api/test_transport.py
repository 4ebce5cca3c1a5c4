"""When the transport closes connections by itself."""

from collections.abc import Callable
from typing import Final

import pytest
from hyperframe.frame import PingFrame

from mlpserve.server.grpc_api import transport
from mlpserve.server.server import Server
from raw_http2 import OK, PREDICT, RawHttp2, grpc_message
from steady_load import REQUEST

TIMEOUT_S: Final = 10.0
SHORT_MS: Final = 300


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
