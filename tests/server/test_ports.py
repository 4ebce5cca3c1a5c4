"""Listening on all addresses of a name that can be had."""

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.server.errors import StartError
from mlpserve.server.healthcheck import health_problem
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.system.ports import SharedPort, check_free, listening_sockets

TIMEOUT_S: Final = 60.0
ELSEWHERE: Final = "192.0.2.1"  # an address for documents, of no machine


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each name mean an address that cannot be bound, and then one that can."""

    def found(_: str, port: int, **__: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, port))
            for name in (ELSEWHERE, "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.usefixtures("two_addresses")
def test_a_name_is_listened_on_where_one_of_its_addresses_cannot_be_had() -> None:
    check_free("localhost", 0)
    with closing(SharedPort("localhost", 0)) as shared:
        assert shared.port
    opened = listening_sockets("localhost", 0)
    assert [each.getsockname()[0] for each in opened] == ["127.0.0.1"]
    port = opened[0].getsockname()[1]
    with pytest.raises(StartError, match="Address already in use"):
        check_free("localhost", port)
    opened[0].close()


@pytest.mark.usefixtures("two_addresses")
def test_a_server_for_a_name_answers_on_the_address_that_there_is(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(host="localhost", http_port=0)
    assert server.http_port
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status


@pytest.mark.parametrize(
    ("host", "reason"),
    [(ELSEWHERE, "Cannot assign requested address"), ("a" * 70, "it is no name of a host")],
)
def test_an_address_that_cannot_be_had_is_said_to_be(host: str, reason: str) -> None:
    with pytest.raises(StartError, match=f"cannot listen on {host}:0: {reason}"):
        listening_sockets(host, 0)


def test_a_path_is_listened_on_and_found_by_the_health_check(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    host = f"unix:{tmp_path}/s"
    for _ in range(2):  # the second finds what the first has left behind
        server = start_server(host=host, http_port=0)
        assert server.address == host
        assert health_problem(server.address) is None
        with pytest.raises(StartError, match="Address already in use"):
            check_free(host, 0)
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(TIMEOUT_S)
            asking.connect(f"{tmp_path}/s.http")
            asking.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n")
            assert asking.recv(100).startswith(b"HTTP/1.1 200")
        server.stop()


def test_one_process_at_most_listens_on_a_path() -> None:
    with pytest.raises(StartError, match="workers: expected 1 with a host of unix:PATH, got 2"):
        ServerConfig(host="unix:s", workers=2)
