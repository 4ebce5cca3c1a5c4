"""Callers' text in the log: quoted, and in few lines however much of it there is."""

import http.client
import logging
import re
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.model.command_line import TextFormatter
from mlpserve.server.errors import StartError
from mlpserve.server.server import Server
from mlpserve.server.statuses import refuse
from mlpserve.server.system.ports import listening_sockets
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.recorder import Recorder
from oip_calls import infer, raw_request, refusal

TIMEOUT_S = 60.0
INFER = "/v2/models/tiny/infer"
STRANGERS = 100
BEGINNING = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) ")
FORGED = "X\n2026-01-01 00:00:00,000 INFO all is well\x1b[2J\r\u2028"
RunServer = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def http_port() -> int:
    (opened,) = listening_sockets("127.0.0.1", 0, shares_port=False)
    with opened:
        port: int = opened.getsockname()[1]
        return port


def test_nothing_that_callers_send_begins_a_line_or_reaches_a_terminal(
    run_server: RunServer, tiny_models: None, http_port: int
) -> None:
    flags = ("--log-format", "text", "--workers", "1", "--http-port", str(http_port))
    with run_server(*flags) as server:
        request = raw_request(np.zeros((1, 6), np.uint8))
        request.inputs[0].datatype = FORGED
        with grpc.insecure_channel(server.address) as channel:
            code, _ = refusal(lambda: infer(channel, request))
            assert code == "INVALID_ARGUMENT"
        for _ in range(STRANGERS):
            with socket.create_connection(("127.0.0.1", http_port), TIMEOUT_S) as stranger:
                stranger.sendall(b"\x00\x1b[2J\r\n\r\n")
                assert stranger.recv(100).startswith(b"HTTP/1.1 400")
        server.wait_for_line("uvicorn.error: ")
        server.stop()
    assert any("\\n2026-01-01" in line and "\\x1b[2J\\r\\u2028" in line for line in server.lines)
    lines = [line.rstrip("\n") for line in server.lines if line]
    assert all(BEGINNING.match(line) and line.isprintable() for line in lines), lines
    malformed = [line for line in lines if "Invalid HTTP request" in line]
    assert len(malformed) <= STRANGERS // 2  # 20 a second


def test_a_traceback_is_indented_and_quoted_too() -> None:
    error = ValueError(FORGED)
    found = (ValueError, error, None)
    record = logging.makeLogRecord({"msg": "it failed", "levelname": "ERROR", "exc_info": found})
    first, *others = TextFormatter().format(record).split("\n")
    assert BEGINNING.match(first)
    assert others
    assert all(line.startswith("  ") and line.isprintable() for line in others)


def test_who_leaves_in_mid_upload_is_no_fault_of_the_server(
    start_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server(http_port=0)
    assert server.http is not None
    head = f"POST {INFER} HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.http.port), TIMEOUT_S) as leaver:
        leaver.sendall(head.encode() + bytes(10))
    deadline_s = time.monotonic() + TIMEOUT_S
    while "CANCELLED" not in repr(server.metrics("server")):
        assert time.monotonic() < deadline_s
    assert not [each for each in caplog.records if each.levelno > logging.INFO]


@pytest.mark.parametrize("body", [b"zz\r\n", b"1\r\n{\r\nzz\r\n"], ids=["first", "second"])
def test_a_body_that_is_no_http_is_refused_once_and_no_fault_of_the_server(
    start_server: Callable[..., Server], caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    server = start_server(http_port=0)
    assert server.http is not None
    for path in (INFER, "/v2"):
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.http.port), TIMEOUT_S) as caller:
            caller.sendall(head.encode() + body)
            received = b"".join(iter(lambda caller=caller: caller.recv(1000), b""))  # type: ignore[misc] # mypy knows no default of a lambda
        assert received.count(b"HTTP/1.1 ") == 1
    assert not [each for each in caplog.records if each.levelno > logging.WARNING]


def test_a_shortage_of_memory_tells_callers_to_ask_later() -> None:
    recorder = Recorder(Counters())
    for error in (MemoryError(), RuntimeError("can't start new thread")):
        told = refuse(recorder, recorder.arrived("Predict", None), error)
        assert (told.code, told.http_code) == (grpc.StatusCode.UNAVAILABLE, 503)
        assert "grpc-retry-pushback-ms" in dict(told.metadata)


def test_a_shortage_over_http_is_a_503(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    server = start_server(http_port=0)
    assert server.http is not None
    monkeypatch.setattr("mlpserve.server.oip.http.app.read_body", no_memory)
    connection = http.client.HTTPConnection("127.0.0.1", server.http.port, timeout=TIMEOUT_S)
    connection.request("POST", INFER, b"{}")
    with connection.getresponse() as response:
        assert (response.status, b"memory" in response.read()) == (503, True)
    connection.close()


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "\ud800"])
def test_what_is_no_name_of_a_host_is_one_sentence(host: str) -> None:
    with pytest.raises(StartError, match="cannot listen on .*it is no name of a host"):
        listening_sockets(host, 0, shares_port=False)
