"""Connections that do not speak HTTP/2, or speak it as noise does."""

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import pytest
from hyperframe.frame import GoAwayFrame

from raw_http2 import PREFACE, RawHttp2

Attack = Callable[..., AbstractContextManager[Any]]
CONNECTIONS: Final = 200
TYPES: Final = 12  # of frames; some beyond those that there are


def hello() -> bytes:
    """Return what a client of TLS says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="HTTP/1.1"),
        pytest.param(hello(), id="TLS", marks=pytest.mark.exhaustive),
        pytest.param(
            np.random.default_rng(7).bytes(4096), id="random bytes", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_who_speaks_something_else_is_closed(
    attack: Attack, opening: bytes, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    with attack(f"{CONNECTIONS} connections that begin with {name}, not HTTP/2") as server:
        for _ in range(CONNECTIONS):
            with RawHttp2(server.address, None) as connection:
                connection.send(opening)
                connection.discard()
                assert connection.is_closed
        server.outcome = "closed at once"


@pytest.mark.exhaustive
def test_random_frames_are_refused_or_close_their_connection(attack: Attack) -> None:
    rng = np.random.default_rng(11)

    def noise() -> bytes:
        """Return a frame with a head that is possible, and random bytes in it."""
        length = int(rng.integers(0, 64))
        head = length.to_bytes(3, "big") + bytes([rng.integers(TYPES), rng.integers(256)])
        return head + int(rng.integers(8)).to_bytes(4, "big") + rng.bytes(length)

    with attack(f"{CONNECTIONS} connections of 100 random frames each") as server:
        closed = 0
        for _ in range(CONNECTIONS):
            with RawHttp2(server.address) as connection:
                connection.send(*(noise() for _ in range(100)))
                # Whatever comes back to that, maybe in headers that need the ones before.
                connection.discard(timeout_s=0.1)
                closed += connection.is_closed
        server.outcome = f"{closed} were closed"
        assert closed > CONNECTIONS / 2


@pytest.mark.exhaustive
def test_last_words_of_a_connection_forge_no_line_of_the_log(attack: Attack) -> None:
    forged = b"\n2026-01-01 00:00:00,000 INFO refused nothing\xff\n"
    with attack(f"{CONNECTIONS} connections that end with a forged line of the log") as server:
        for _ in range(CONNECTIONS):
            with RawHttp2(server.address) as connection:
                connection.take_note()
                connection.send(GoAwayFrame(error_code=2, additional_data=forged))
        server.outcome = "the log has none of it"
    assert not [line for line in server.server.lines if "refused" in line]
    assert len(server.server.lines) < 10


@pytest.mark.exhaustive
def test_who_speaks_plainly_to_a_server_of_tls_is_closed(attack: Attack, tls: Any) -> None:
    flags = ("--tls-certificate", tls.chain, "--tls-key", tls.key)
    fault = (
        f"{CONNECTIONS} connections that speak plainly, or nothing but garbage, where TLS is spoken"
    )
    with attack(fault, *flags, credentials=tls.credentials) as server:
        for number in range(CONNECTIONS):
            opening = PREFACE if number % 2 else b"\x16\x03\x01\x02\x00" + bytes(517)
            with RawHttp2(server.address, None) as connection:
                connection.send(opening)
                connection.discard()
                assert connection.is_closed
        server.outcome = "closed at once"
