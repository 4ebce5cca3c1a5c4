"""Connections of TLS that only begin, and certificates that are renewed wrongly."""

import http.client
import signal
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any, Final

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.server.oip.http.limits import MAX_CONNECTIONS, SPARE_CONNECTIONS
from ports import free_port

Attack = Callable[..., AbstractContextManager[Any]]
TIMEOUT_S: Final = 20.0
SILENT: Final = 7600
CONNECTIONS: Final = MAX_CONNECTIONS + SPARE_CONNECTIONS
RENEWALS: Final = 20
MAX_LINES: Final = 100


def live(port: int, authority: trustme.CA) -> int:
    """Return the status of a request over a new connection of HTTPS."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    opened = http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT_S, context=context)
    opened.request("GET", "/v2/health/live")
    with opened.getresponse() as response:
        response.read()
    opened.close()
    return response.status


def check(address: str, authority: trustme.CA) -> bool:
    """Return whether a new connection of gRPC is answered."""
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, trusted, options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return True


@pytest.mark.exhaustive
def test_thousands_of_silent_connections_to_https_leave_room_for_all_others(
    attack: Attack, tls: Any
) -> None:
    port = free_port()
    fault = f"HTTPS: {SILENT:,} silent connections, half of them within a handshake"
    flags = (*tls.flags, "--http-port", str(port))
    with attack(fault, *flags, credentials=tls.credentials, peak_mb=150) as server:
        assert live(port, tls.authority) == 200
        most, longest_s = 0, 0.0
        with ExitStack() as held:
            for number in range(SILENT):
                opened = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
                held.callback(opened.close)
                if number % 2:
                    with suppress(ConnectionError):  # closed already
                        opened.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
                if number % 500 == 0:
                    began_s = time.monotonic()
                    assert check(server.address, tls.authority)
                    assert live(port, tls.authority) == 200
                    longest_s = max(longest_s, time.monotonic() - began_s)
                    most = max(most, server.now().descriptors - server.before.descriptors)
        assert most <= CONNECTIONS + 20
        lines = len(server.server.lines)
        assert lines < MAX_LINES, server.server.lines
        server.outcome = (
            f"of HTTPS at most {MAX_CONNECTIONS} are kept: {most} descriptors; new connections of "
            f"gRPC and HTTPS are answered, both within {longest_s:.2f} s; {lines} lines of the log"
        )


@pytest.mark.exhaustive
def test_a_certificate_without_its_key_is_taken_over_nowhere_and_the_whole_pair_everywhere(
    attack: Attack, tls: Any
) -> None:
    port = free_port()
    fault = f"{RENEWALS} certificates without their keys, then with them; TLS, gRPC and HTTPS"
    flags = (*tls.flags, "--http-port", str(port))
    with attack(fault, *flags, credentials=tls.credentials) as server:
        served, waited_s = tls.authority, 0.0
        for _ in range(RENEWALS):
            renewed = trustme.CA()
            issued = renewed.issue_cert("127.0.0.1", "localhost")
            issued.cert_chain_pems[0].write_to_path(tls.chain)
            server.server.process.send_signal(signal.SIGHUP)
            assert live(port, served) == 200
            assert check(server.address, served)
            issued.private_key_pem.write_to_path(tls.key)
            server.server.process.send_signal(signal.SIGHUP)
            began_s = time.monotonic()
            while not (is_served(port, renewed) and check(server.address, renewed)):
                assert time.monotonic() < began_s + TIMEOUT_S
            waited_s = max(waited_s, time.monotonic() - began_s)
            served = renewed
        server.outcome = (
            "the old pair is served until the new one is whole, which new connections get within "
            f"{waited_s:.2f} s"
        )


def is_served(port: int, authority: trustme.CA) -> bool:
    """Return whether HTTPS shows a certificate of an authority."""
    try:
        return live(port, authority) == 200
    except ssl.SSLError:
        return False
