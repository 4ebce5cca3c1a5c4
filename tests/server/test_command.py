"""The server as its users run it: a process, its log, its signals, its exit code."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import grpc
import pytest

from mlpserve.server.healthcheck import health_problem
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from processes import children

START = [sys.executable, "-m", "mlpserve.server"]


@contextmanager
def running(models: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    command = [*START, "--models", str(models), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ready = re.search(r"ready: .* on (\S+)$", process.stderr.readline())
        assert ready is not None
        yield process, ready[1]


def finished(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*START, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    "signal_number",
    [
        pytest.param(signal.SIGTERM, id="TERM"),
        pytest.param(signal.SIGINT, id="INT", marks=pytest.mark.exhaustive),
    ],
)
def test_a_server_says_when_it_is_ready_and_ends_well_when_told_to(
    models: Path, tiny_models: None, signal_number: signal.Signals
) -> None:
    command = [*START, "--models", str(models), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ready = re.search(r"ready: serving (.*) on (\S+)$", process.stderr.readline())
        assert ready is not None
        assert ready[1] == "tiny version 2 and 1"
        assert health_problem(ready[2]) is None
        check = finished("healthcheck", "--target", ready[2])
        assert check.returncode == 0
        process.send_signal(signal_number)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert log.endswith("stopped\n")
    assert finished("healthcheck", "--target", ready[2]).returncode == 1


def test_more_versions_are_served_than_files_may_usually_be_open(
    models: Path, publish: Callable[..., None]
) -> None:
    publish("digits", versions=30)
    command = [*START, "--models", str(models), "--port", "0", "--workers", "1"]
    # Not by preexec_fn: gRPC starts threads in a fork, and these break when files are closed.
    limited = ["sh", "-c", 'ulimit -S -n 64; exec "$@"', "sh", *command, "--versions", "all"]
    with subprocess.Popen(limited, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "ready: serving digits version 30 and 29 and" in process.stderr.readline()
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.exhaustive
def test_a_server_ends_however_its_signals_come(models: Path, tiny_models: None) -> None:
    # Two at once once left one in four servers waiting for ever.
    for _ in range(10):
        with running(models) as (process, _):
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_server_all_processes_of_which_are_told_to_stop_while_it_starts_ends_well(
    models: Path, tiny_models: None
) -> None:
    command = [*START, "--models", str(models), "--port", "0", "--workers", "2"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while len(children(process.pid)) < 2:  # the test's limit of time ends it
            pass
        os.killpg(process.pid, signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert "died" not in log


def test_a_second_signal_ends_a_server_that_still_waits_for_a_call(
    models: Path, tiny_models: None
) -> None:
    ended = Event()
    image = prediction_pb2.ImageBatch(
        count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
    )

    def requests() -> Iterator[prediction_pb2.PredictStreamRequest]:
        yield prediction_pb2.PredictStreamRequest(images=image)
        ended.wait(30)

    with running(models) as (process, address), grpc.insecure_channel(address) as channel:
        assert process.stderr is not None
        call = prediction_pb2_grpc.PredictionServiceStub(channel).PredictStream(requests())
        next(call)
        process.send_signal(signal.SIGTERM)
        while "stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM
        ended.set()
        call.cancel()


def test_the_health_check_of_an_ipv6_host_asks_that_host() -> None:
    done = finished("--host", "::1", "--port", "1", "healthcheck")
    assert done.returncode == 1
    assert "[::1]:1 does not answer: UNAVAILABLE" in done.stderr


def test_the_health_check_asks_the_server_itself_and_no_proxy(
    models: Path, tiny_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with running(models) as (process, address):
        port = address.rpartition(":")[2]
        assert finished("--port", port, "healthcheck").returncode == 0
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
def test_a_server_may_be_started_before_there_is_a_model(
    models: Path, publish: Callable[..., None], *, is_there: bool
) -> None:
    if is_there:
        models.mkdir()
    command = [*START, "--models", str(models), "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        told = (re.search(r"not ready: listening on (\S+), but (.*)", line) for line in lines)
        waiting = next(filter(None, told))
        assert f"train one with: mlpserve-train --models {models}" in waiting[2]
        check = finished("healthcheck", "--target", waiting[1])
        assert check.returncode == 1
        assert "is not ready: NOT_SERVING" in check.stderr
        publish("digits", versions=1)
        assert any("ready: serving digits version 1" in line for line in lines)
        assert health_problem(waiting[1]) is None
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "file"], "models: expected a folder, got a file: file"),
        (["--versions", "some"], "--versions: expected a number N for the newest N, 'all', or"),
        (["--default-model", "a b"], "--default-model: expected the name of a model, got 'a b'"),
        (["--default-label", "7"], "--default-label: expected a label, got '7'"),
        (["--port", "70000"], "--port: expected a whole number, from 0 to 65535, got '70000'"),
        (["--max-batch-images", "0"], "--max-batch-images: expected a whole number, at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_said_in_one_sentence(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no folder")
    done = finished("--port", 0, *arguments)  # somebody may listen on the default one
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_not_of_this_machine_is_said_to_be(
    models: Path, publish: Callable[..., None]
) -> None:
    publish("digits", versions=1)
    done = finished("--models", models, "--host", "192.0.2.1")
    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1:50051: Cannot assign requested address" in done.stderr
