"""The metrics endpoint, for Prometheus and whoever else connects."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from queue import SimpleQueue

import pytest

from mlpserve.server.errors import StartError
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.system.threads import EXIT_THREAD_DIED
from mlpserve.server.telemetry.endpoint import MetricsEndpoint, open_endpoint
from mlpserve.server.telemetry.metrics import METRICS
from mlpserve.server.telemetry.snapshots import Aggregate

TIMEOUT_S = 60.0


@pytest.fixture
def pages() -> "SimpleQueue[str | Exception]":
    return SimpleQueue()


@pytest.fixture
def endpoint(pages: "SimpleQueue[str | Exception]") -> Iterator[MetricsEndpoint]:
    """Return an endpoint that tells the next of ``pages``."""

    def page() -> str:
        found = pages.get(timeout=TIMEOUT_S)
        if isinstance(found, Exception):
            raise found
        return found

    opened = MetricsEndpoint("127.0.0.1", 0, page)
    yield opened
    opened.close()


def connected(endpoint: MetricsEndpoint) -> socket.socket:
    host, _, port = endpoint.address.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def answer(endpoint: MetricsEndpoint, request: str) -> tuple[str, str]:
    """Return the status line and the body."""
    with connected(endpoint) as connection:
        connection.sendall(request.encode())
        received = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    head, _, body = received.partition("\r\n\r\n")
    return head.partition("\r\n")[0], body


GET = "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


def test_the_metrics_are_told_and_nothing_else(
    endpoint: MetricsEndpoint, pages: "SimpleQueue[str | Exception]"
) -> None:
    pages.put("a 1\n")
    assert answer(endpoint, GET) == ("HTTP/1.1 200 OK", "a 1\n")
    for request, status in (
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("GET /metrics/.. HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (f"GET /metrics HTTP/1.1\r\n{'x' * 8192}", "HTTP/1.1 431 Request Header Fields Too Large"),
    ):
        assert answer(endpoint, request)[0] == status


def test_those_who_hold_connections_open_keep_nobody_from_the_metrics(
    endpoint: MetricsEndpoint, pages: "SimpleQueue[str | Exception]"
) -> None:
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(connected(endpoint)).sendall(b"GET /metr")
        pages.put("a 1\n")
        assert answer(endpoint, GET)[1] == "a 1\n"


def test_a_page_that_fails_is_a_failure_of_one_scrape(
    endpoint: MetricsEndpoint,
    pages: "SimpleQueue[str | Exception]",
    caplog: pytest.LogCaptureFixture,
) -> None:
    pages.put(OSError("the secret of /etc/shadow"))
    status, body = answer(endpoint, GET)
    assert status == "HTTP/1.1 500 Internal Server Error"
    assert "secret" not in body
    assert "the metrics could not be told" in caplog.text
    pages.put("a 1\n")
    assert answer(endpoint, GET)[1] == "a 1\n"


def test_a_port_that_is_taken_is_said_to_be(endpoint: MetricsEndpoint) -> None:
    port = int(endpoint.address.rpartition(":")[2])
    with pytest.raises(StartError, match="Address already in use; choose others with --metrics-"):
        MetricsEndpoint("127.0.0.1", port, str)


def test_a_process_ends_with_the_thread_that_tells_its_metrics() -> None:
    program = """
import asyncio, threading
from mlpserve.server.system.threads import watch_threads
from mlpserve.server.telemetry.endpoint import MetricsEndpoint
asyncio.start_server = None
watch_threads()
MetricsEndpoint("127.0.0.1", 0, str)
threading.Event().wait()
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert ended.returncode == EXIT_THREAD_DIED


def test_metrics_are_told_only_where_the_settings_say_so() -> None:
    threads = threading.active_count()
    assert open_endpoint(ServerConfig(), Aggregate(dict)) is None
    assert threading.active_count() == threads
    endpoint = open_endpoint(ServerConfig(metrics_port=0), Aggregate(dict))
    assert endpoint is not None
    assert endpoint.address.startswith("127.0.0.1:")
    status, body = answer(endpoint, GET)
    assert status == "HTTP/1.1 200 OK"
    assert all(f"# TYPE {metric.name} {metric.kind}\n" in body for metric in METRICS)
    endpoint.close()
