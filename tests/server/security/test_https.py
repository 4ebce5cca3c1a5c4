"""Certificates of HTTPS that change while it is served, and connections that only begin."""

import http.client
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from footprint import Footprint
from mlpserve.server.oip.http.limits import MAX_CONNECTIONS
from mlpserve.server.security.reloading_files import ReloadingFiles
from mlpserve.server.server import Server

TIMEOUT_S = 60.0
SILENT = 2 * MAX_CONNECTIONS
StartServer = Callable[..., Server]


@dataclass(frozen=True)
class Https:
    """A server of HTTPS, and the files of its certificates."""

    folder: Path
    start: StartServer

    def serve(self, *, client_ca: trustme.CA | None = None) -> Server:
        files = {"tls_certificate": self.folder / "chain.pem", "tls_key": self.folder / "key.pem"}
        if client_ca is not None:
            self.trust(client_ca)
            files["tls_client_ca"] = self.folder / "clients.pem"
        return self.start(http_port=0, **files)

    def issue(self, ca: trustme.CA, *, key: bool = True) -> None:
        """Write a new certificate, and its key."""
        issued = ca.issue_cert("localhost")
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        (self.folder / "chain.pem").write_bytes(chain)
        if key:
            issued.private_key_pem.write_to_path(self.folder / "key.pem")

    def trust(self, ca: trustme.CA) -> None:
        """Write the authority of callers."""
        ca.cert_pem.write_to_path(self.folder / "clients.pem")


@pytest.fixture
def https(tmp_path: Path, start_server: StartServer) -> Https:
    return Https(tmp_path, start_server)


def live(server: Server, ca: trustme.CA, caller: trustme.CA | None = None) -> int:
    """Return the status of a request over a new connection."""
    assert server.http is not None
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if caller is not None:
        caller.issue_cert("caller").configure_cert(context)
    opened = http.client.HTTPSConnection(
        "localhost", server.http.port, timeout=TIMEOUT_S, context=context
    )
    opened.request("GET", "/v2/health/live")
    with opened.getresponse() as response:
        response.read()
    opened.close()
    return response.status


def test_a_certificate_without_its_key_leaves_the_pair_that_was_served(https: Https) -> None:
    ca, renewed = trustme.CA(), trustme.CA()
    https.issue(ca)
    server = https.serve()
    assert live(server, ca) == 200
    https.issue(renewed, key=False)
    server.reload()
    assert live(server, ca) == 200
    https.issue(renewed)
    server.reload()
    assert live(server, renewed) == 200
    with pytest.raises(ssl.SSLError):
        live(server, ca)


def test_a_new_authority_of_callers_is_taken_over(https: Https) -> None:
    ca, old, new = trustme.CA(), trustme.CA(), trustme.CA()
    https.issue(ca)
    server = https.serve(client_ca=old)
    assert live(server, ca, old) == 200
    https.trust(new)
    server.reload()
    assert live(server, ca, new) == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        live(server, ca, old)


def test_a_change_within_a_tick_of_the_clock_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first")
    files = ReloadingFiles([file], lambda contents: contents[0])
    written = file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(written.st_atime_ns, written.st_mtime_ns))
    files.reload()
    assert files.get() == b"other"


def test_connections_that_only_begin_are_counted_and_leave_room_for_others(https: Https) -> None:
    ca = trustme.CA()
    https.issue(ca)
    server = https.serve()
    assert live(server, ca) == 200
    assert server.http is not None
    before = Footprint.of(os.getpid()).descriptors
    with ExitStack() as held:
        for _ in range(SILENT):
            held.enter_context(socket.create_connection(("127.0.0.1", server.http.port), TIMEOUT_S))
        assert live(server, ca) == 200
        theirs = Footprint.of(os.getpid()).descriptors - before - SILENT
        assert theirs <= MAX_CONNECTIONS
