"""The HTTP endpoint: connections that are slow, silent, too large, or never read."""

import http.client
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, Final

import pytest

from ports import free_port

Attack = Callable[..., AbstractContextManager[Any]]
TIMEOUT_S: Final = 20.0
CONNECTIONS: Final = 400  # more than the 256 that are open at once
HEAD_TIMEOUT_S: Final = 10.0
READY: Final = "/v2/health/ready"
INFER: Final = "/v2/models/tiny/infer"
GIB: Final = 1 << 30


@contextmanager
def attacked_http(attack: Attack, fault: str, *flags: str, **limits: Any) -> Iterator[Any]:
    """Have a server with an HTTP endpoint attacked; its port is ``http_port``."""
    port = free_port()
    with attack(fault, "--http-port", str(port), *flags, **limits) as server:
        server.http_port = port
        status(port)  # what is imported and opened by the first is there before
        yield server


def opened(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_S)


def status(port: int, method: str = "GET", path: str = READY, **options: Any) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, TIMEOUT_S)
    connection.request(method, path, **options)
    with connection.getresponse() as response:
        found = response.status, response.read().decode()
    connection.close()
    return found


@pytest.mark.exhaustive
def test_those_who_say_nothing_or_too_little_keep_nobody_out_and_are_closed(attack: Attack) -> None:
    fault = f"HTTP: {CONNECTIONS} connections that are silent, or send a byte at times"
    with attacked_http(attack, fault) as server, ExitStack() as held:
        slow = [held.enter_context(opened(server.http_port)) for _ in range(CONNECTIONS)]
        began_s = time.monotonic()
        assert status(server.http_port)[0] == 200
        head = iter(b"GET /v2 HTTP/1.1\r\nx: " + b"y" * 1000)
        still = slow[-100:]
        while still and time.monotonic() < began_s + 2 * HEAD_TIMEOUT_S:
            byte = bytes([next(head)])
            still = [each for each in still if is_open(each, byte)]
            time.sleep(0.1)
        assert not still
        server.outcome = f"others are let in; all are closed within {HEAD_TIMEOUT_S:g} s"


def is_open(connection: socket.socket, byte: bytes) -> bool:
    """Send a byte over a connection, and return whether it is open."""
    try:
        connection.sendall(byte)
        connection.settimeout(0)
        return bool(connection.recv(1000))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        connection.settimeout(TIMEOUT_S)


@pytest.mark.exhaustive
def test_heads_and_bodies_that_are_too_large_are_refused_before_they_are_read(
    attack: Attack,
) -> None:
    fault = "HTTP: a head of 1 MB, bodies that announce 10 GiB or unpack to 256 MiB"
    with attacked_http(attack, fault, peak_mb=150) as server:
        port = server.http_port
        with opened(port) as connection:
            connection.sendall(b"GET /v2 HTTP/1.1\r\nx: ")
            assert not is_open_after(connection, b"y" * 1_000_000)
        announced = {"Content-Length": str(10 * GIB)}
        assert status(port, "POST", INFER, headers=announced)[0] == 413
        packer = zlib.compressobj()
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
        packed = {"Content-Encoding": "deflate"}
        code, sentence = status(port, "POST", INFER, headers=packed, body=bomb)
        assert code == 413
        assert "expected at most 67108864 bytes" in sentence
        server.outcome = "closed; 413, with the limit, for both"


def is_open_after(connection: socket.socket, data: bytes) -> bool:
    """Send data, and return whether the server answers anything but a refusal to read it."""
    try:
        connection.sendall(data)
        answer = connection.recv(1000)
    except ConnectionError:
        return False
    return not (answer == b"" or answer.startswith(b"HTTP/1.1 4"))


@pytest.mark.exhaustive
def test_who_never_reads_is_sent_no_more_than_was_asked(attack: Attack) -> None:
    fault = "HTTP: 100 connections that ask 100 times each, and read nothing"
    with attacked_http(attack, fault) as server, ExitStack() as held:
        request = b"GET /v2/models/tiny HTTP/1.1\r\nHost: here\r\n\r\n"
        connections = [held.enter_context(opened(server.http_port)) for _ in range(100)]
        for connection in connections:
            connection.sendall(100 * request)
        assert status(server.http_port)[0] == 200
        for connection in connections:
            assert answers(connection, 100) == 100
        server.outcome = "answers wait in buffers, others are answered"


def answers(connection: socket.socket, count: int) -> int:
    """Return how many answers come over a connection, of which some are waited for."""
    received = b""
    while received.count(b"HTTP/1.1 200 OK") < count:
        block = connection.recv(1 << 16)
        assert block
        received += block
    connection.settimeout(0.01)
    with suppress(TimeoutError):
        received += connection.recv(1 << 16)
    return received.count(b"HTTP/1.1 200 OK")
