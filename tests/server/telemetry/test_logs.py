"""The server's log: for people or for programs, and never in the way of serving."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from mlpserve.server.healthcheck import health_problem
from mlpserve.server.server import Server
from mlpserve.server.telemetry.logs import BackgroundHandler
from mlpserve.server.telemetry.metrics import LOG_LINES_DROPPED
from mlpserve.server.telemetry.rate_limit import RateLimit
from mlpserve.server.telemetry.request_log import RequestLog
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from ports import free_port

TIMEOUT_S = 60.0
OWN_ID = re.compile(r"[0-9a-f]{16}")


@pytest.fixture
def command(models: Path, tiny_models: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what starts a server on a port that is free, and logs as if nobody said how."""
    monkeypatch.delenv("MLPSERVE_LOG_FORMAT")
    flags = ["--models", str(models), "--port", "0", "--workers", "1"]
    return [sys.executable, "-m", "mlpserve.server", *flags]


@contextmanager
def running(command: list[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_a_log_that_no_terminal_shows_is_json_with_facts_of_refused_requests(
    command: list[str],
) -> None:
    with running(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        ready = json.loads(process.stderr.readline())
        address = re.search(r"ready: .* on (\S+)$", ready["message"])
        assert address is not None
        assert (ready["level"], ready["process"]) == ("info", process.pid)
        json.loads(process.stderr.readline())
        with grpc.insecure_channel(address[1]) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                stub.Predict(
                    prediction_pb2.PredictRequest(),
                    timeout=TIMEOUT_S,
                    metadata=(("x-request-id", "mine"),),
                )
        refused = json.loads(process.stderr.readline())
        assert refused["code"] == "INVALID_ARGUMENT"
        assert refused["method"] == "Predict"
        assert refused["request_id"] == "mine"
        process.terminate()
        _, rest = process.communicate(timeout=TIMEOUT_S)
    assert json.loads(rest.splitlines()[-1])["message"] == "stopped"


def test_a_log_on_a_terminal_is_text(command: list[str]) -> None:
    ours, terminal = pty.openpty()
    with running(command, stderr=terminal), os.fdopen(ours, "rb") as shown:
        os.close(terminal)
        assert b" INFO ready: serving tiny version 2 and 1 on 127.0.0.1:" in shown.readline()


@pytest.mark.exhaustive
def test_what_is_below_the_level_is_not_logged(command: list[str]) -> None:
    port = free_port()
    flags = ["--log-level", "error", "--port", str(port)]
    with running([*command, *flags], stderr=subprocess.PIPE) as process:
        while health_problem(f"127.0.0.1:{port}") is not None:
            assert process.poll() is None
        process.terminate()
        assert process.communicate(timeout=TIMEOUT_S)[1] == ""


@pytest.mark.parametrize(
    "log", ["/dev/full", "closed pipe", pytest.param("closed", marks=pytest.mark.exhaustive)]
)
def test_a_log_that_cannot_be_written_harms_nobody(command: list[str], log: str) -> None:
    port = free_port()
    # Not by preexec_fn: gRPC starts threads in a fork, and these break when files are closed.
    before = ["sh", "-c", 'exec "$@" 2>&-', "sh"] if log == "closed" else []
    with (
        unwritable(log) as stderr,
        running([*before, *command, "--port", str(port)], stderr=stderr) as process,
    ):
        while health_problem(f"127.0.0.1:{port}") is not None:
            assert process.poll() is None
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(prediction_pb2.PredictRequest(), timeout=TIMEOUT_S)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


@contextmanager
def unwritable(log: str) -> Iterator[int]:
    """Yield a descriptor that cannot be written to."""
    if log == "/dev/full":
        writing = os.open(log, os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    yield writing
    os.close(writing)


def test_a_log_that_nobody_reads_makes_nobody_wait() -> None:
    reading, writing = os.pipe()
    handler = BackgroundHandler(writing)
    line = logging.makeLogRecord({"msg": "x" * 1000})
    for _ in range(5000):  # a pipe holds 64 of these, and the handler 1000
        handler.emit(line)
    assert handler.lines_dropped > 3000
    os.close(reading)
    handler.flush()


def test_dropped_lines_are_told_as_a_metric(server: Server) -> None:
    before = server.metrics("server")[LOG_LINES_DROPPED.name][0][1]
    handler = BackgroundHandler(os.open("/dev/full", os.O_WRONLY))
    logging.root.addHandler(handler)
    handler.emit(logging.makeLogRecord({"msg": "x"}))
    handler.flush()
    assert server.metrics("server")[LOG_LINES_DROPPED.name] == [([], before + 1)]  # type: ignore[operator]
    logging.root.removeHandler(handler)


Metadata = tuple[tuple[str, str | bytes], ...]
Call = Callable[[prediction_pb2_grpc.PredictionServiceStub, Metadata], object]


def predict(stub: prediction_pb2_grpc.PredictionServiceStub, metadata: Metadata) -> object:
    return stub.Predict(prediction_pb2.PredictRequest(), metadata=metadata, timeout=TIMEOUT_S)


def predict_stream(stub: prediction_pb2_grpc.PredictionServiceStub, metadata: Metadata) -> object:
    requests = iter([prediction_pb2.PredictStreamRequest()])
    return list(stub.PredictStream(requests, metadata=metadata, timeout=TIMEOUT_S))


def get_model(stub: prediction_pb2_grpc.PredictionServiceStub, metadata: Metadata) -> object:
    request = prediction_pb2.GetModelRequest(model_name="none")
    return stub.GetModel(request, metadata=metadata, timeout=TIMEOUT_S)


@pytest.mark.parametrize("call", [predict, predict_stream, get_model])
@pytest.mark.parametrize(
    ("given", "is_taken_over"),
    [
        ("7f3e-caller/4", True),
        ("", False),
        ("x" * 65, False),
        ("two words", False),
        ("%0a[forged]", False),
        (None, False),
    ],
)
def test_a_refused_caller_gets_the_id_under_which_the_log_knows_the_request(
    server: Server,
    caplog: pytest.LogCaptureFixture,
    call: Call,
    given: str | None,
    is_taken_over: bool,  # noqa: FBT001 - a case's own
) -> None:
    metadata: Metadata = () if given is None else (("x-request-id", given),)
    with (
        caplog.at_level(logging.INFO),
        grpc.insecure_channel(server.address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        call(prediction_pb2_grpc.PredictionServiceStub(channel), metadata)
    sent_along: Any = caught.value.trailing_metadata()
    found: str = dict(sent_along)["mlpserve-request-id"]
    assert found == given if is_taken_over else OWN_ID.fullmatch(found)
    lines = [record.getMessage() for record in caplog.records if found in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("refused ")


@pytest.fixture
def logged() -> Iterator["SimpleQueue[logging.LogRecord]"]:
    """Return what is logged of requests, as it comes."""
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(records)
    logger = logging.getLogger("mlpserve.server.telemetry.request_log")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_flood_of_refusals_is_counted_and_not_listed(
    logged: "SimpleQueue[logging.LogRecord]",
) -> None:
    log = RequestLog()
    for number in range(1000):
        log.refused("Predict", ValueError("bad"), code="X", request_id=str(number))
    log.failed("Predict", ValueError("a fault"), code="INTERNAL", request_id="f")
    lines = [logged.get(timeout=TIMEOUT_S).getMessage() for _ in range(22)]
    assert lines[:2] == ["refused Predict: bad [0]", "refused Predict: bad [1]"]
    assert "Predict failed [f]" in lines[20]
    assert lines[21] == "refused 980 more requests"


def test_each_second_has_lines_of_its_own() -> None:
    now_s = 0.0
    left_out: SimpleQueue[int] = SimpleQueue()
    limit = RateLimit(left_out.put, clock=lambda: now_s)
    assert [limit.allows() for _ in range(21)] == [*[True] * 20, False]
    now_s = 1.0
    assert limit.allows()
    assert left_out.get(timeout=TIMEOUT_S) == 1
