"""The examples of services that call Predict, against a real server."""

import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGE = bytes(6)  # of the tiny model


@contextmanager
def fastapi_service(target: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the example of a web service; yield its process and its URL."""
    program = [
        *(sys.executable, "-c"),
        "import sys, uvicorn; sys.path.insert(0, sys.argv[1]); import fastapi_service;"
        "uvicorn.run(fastapi_service.app, host='127.0.0.1', port=0)",
        str(EXAMPLES),
    ]
    process = subprocess.Popen(
        program, stderr=subprocess.PIPE, text=True, env={"MLPSERVE_TARGET": target}
    )
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "running on" in line)
        yield process, line.split("running on ")[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
    assert process.returncode in {0, -signal.SIGTERM}, said
    assert "Application shutdown complete" in said


def ask(url: str, body: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, body, timeout=30) as answer:  # noqa: S310 - our own
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_fastapi_service_answers_images_and_errors_with_statuses_of_their_own(
    server: Server,
) -> None:
    with fastapi_service(server.address) as (_, url):
        status, answer = ask(f"{url}/classify", IMAGE)
        assert status == 200
        assert (answer["model"], answer["version"]) == ("tiny", 2)
        assert 1 / 3 <= answer["probability"] <= 1
        status, answer = ask(f"{url}/classify", IMAGE + b"?")
        assert status == 422
        assert "expected 6 bytes" in answer["error"]
        assert ask(f"{url}/classify", bytes(1 << 20))[0] == 422
        assert ask(f"{url}/healthz") == (200, {"status": "ok"})


def test_the_fastapi_service_says_that_there_is_no_server(unused_port: int) -> None:
    with fastapi_service(f"127.0.0.1:{unused_port}") as (_, url):
        assert ask(f"{url}/classify", IMAGE)[0] == 503
        assert ask(f"{url}/healthz")[0] in {503, 504}


@pytest.mark.exhaustive
def test_the_fastapi_service_ends_after_the_request_that_is_under_way(
    serve: Callable[..., str],
) -> None:
    has_come, may_answer = threading.Event(), threading.Event()

    def predict(_: Any, context: grpc.ServicerContext) -> prediction_pb2.PredictResponse:
        has_come.set()
        assert may_answer.wait(30)
        return prediction_pb2.PredictResponse(
            model_name="m", model_version=7, probabilities=bytes(4), labels=bytes(4)
        )

    answers: list[tuple[int, Any]] = []
    with fastapi_service(serve(Predict=predict)) as (process, url):
        caller = threading.Thread(target=lambda: answers.append(ask(f"{url}/classify", IMAGE)))
        caller.start()
        assert has_come.wait(30)
        process.send_signal(signal.SIGTERM)
        may_answer.set()
        caller.join(30)
    assert [(status, answer["version"]) for status, answer in answers] == [(200, 7)]


def test_each_worker_process_has_a_client_of_its_own(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "worker_processes.py", server.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("2048 images: {")


def test_python_without_the_library_gets_the_probabilities(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "call_predict.py", server.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 3


@pytest.fixture
def unused_port() -> Iterator[int]:
    """Return a port of this machine at which nobody listens, kept from others meanwhile."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]
