"""Requests and connections over HTTP, HTTPS and to the metrics."""

import gzip
import http.client
import random
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Final

from servers.abuses.abuse import TIMEOUT_S, Abuse, Held, Target
from servers.abuses.grpc_messages import FORGED
from servers.protocols import MODEL

_INFER: Final = f"/v2/models/{MODEL}/infer"
_LOAD: Final = f"/v2/repository/models/{MODEL}/load"
_MB: Final = 1 << 20
_LIMIT_BYTES: Final = 64 * _MB - 4096  # as --max-message-mb has it by default
_HEAD: Final = b'{"inputs":[{"name":"images","datatype":"FP32","shape":[1,784],"data":['
_BOMB_ITEMS: Final = (b"[],", b"{},", b"[[[[1]]]],", b"1,", b'"ab",')
_RECEIVE_S: Final = 0.05


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_S)


def _received(connection: socket.socket) -> str:
    """Return the status that a connection has got, or that it is open, or closed, without."""
    connection.settimeout(_RECEIVE_S)
    try:
        line = connection.recv(64)
    except TimeoutError:
        return "open"
    except ConnectionError:
        return "closed"
    finally:
        connection.settimeout(TIMEOUT_S)
    return line.split(b" ")[1].decode() if line.startswith(b"HTTP/1.1 ") else "closed"


class JsonBombs(Abuse):
    """JSON of a few kilobytes that unpacks to the limit."""

    what = "HTTP: gzip JSON that unpacks to 64 MB of empty lists and the like"
    per_s = 0.25

    def __init__(self, target: Target, rng: random.Random) -> None:
        super().__init__(target, rng)
        self._bombs = [
            gzip.compress(_HEAD + item * (_LIMIT_BYTES // len(item)) + b"1]}]}", 1)
            for item in _BOMB_ITEMS
        ]

    def act(self) -> Iterable[str]:
        """Post one, sometimes to the repository."""
        path = self.rng.choice((_INFER, _INFER, _LOAD))
        opened = http.client.HTTPConnection("127.0.0.1", self.target.http_port, timeout=TIMEOUT_S)
        try:
            headers = {"content-encoding": "gzip", "content-type": "application/json"}
            opened.request("POST", path, self.rng.choice(self._bombs), headers)
            with opened.getresponse() as response:
                response.read()
        finally:
            opened.close()
        return [str(response.status)]


class SlowBodies(Abuse):
    """Bodies of which a byte comes at times."""

    what = "HTTP: 64 bodies at once of which a byte comes every few seconds"
    per_s = 2

    def __init__(self, target: Target, rng: random.Random) -> None:
        super().__init__(target, rng)
        self._held = Held(64)

    def act(self) -> Iterable[str]:
        """Begin one, and send a byte of some of the others."""
        opened = _connected(self.target.http_port)
        opened.sendall(_head(_INFER, 1_000_000) + b"{")
        self._held.add(opened)
        for each in self.rng.sample(list(self._held.all), min(16, len(self._held.all))):
            try:
                each.sendall(b" ")
            except ConnectionError:
                self._held.all.remove(each)
                yield "closed"
        yield "open"

    def close(self) -> Iterable[str]:
        """Leave."""
        self._held.close()
        return ()


class LeavingInMidUpload(Abuse):
    """Clients that leave in the middle of a body."""

    what = "HTTP: uploads of 1 MB that are left in the middle"
    per_s = 5

    def act(self) -> Iterable[str]:
        """Send a part, and leave."""
        with _connected(self.target.http_port) as opened:
            opened.sendall(_head(_INFER, _MB) + bytes(self.rng.randrange(_MB // 2)))
        return ["left"]


class NoHttp(Abuse):
    """Bytes that are no HTTP, or that are it nearly."""

    what = "malformed HTTP"
    per_s = 10
    _forms: Final = (
        b"\x00\x1b[2J\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\x7f\x1b HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000,
    )

    def act(self) -> Iterable[str]:
        """Send some."""
        with _connected(self.target.http_port) as opened:
            opened.sendall(self.rng.choice(self._forms))
            return [_received(opened)]


class TooLargeBodies(Abuse):
    """Bodies that announce more than the limit."""

    what = "HTTP: a body that announces 10 GB"
    per_s = 2

    def act(self) -> Iterable[str]:
        """Announce one."""
        with _connected(self.target.http_port) as opened:
            opened.sendall(_head(_INFER, 10_000 * _MB) + bytes(1000))
            return [_received(opened)]


class ForgedPaths(Abuse):
    """Names in paths that would be lines of the log."""

    what = "HTTP: model names with new lines and terminal escapes"
    per_s = 20

    def act(self) -> Iterable[str]:
        """Ask for one."""
        path = f"/v2/models/{urllib.parse.quote(FORGED)}/infer"
        with _connected(self.target.http_port) as opened:
            opened.sendall(_head(path, 2) + b"{}")
            return [_received(opened)]


class SilentTls(Abuse):
    """Connections to HTTPS that never begin a handshake, or never end it."""

    what = "HTTPS: silent connections, or ones that send half a hello; 600 held"
    per_s = 40
    _half_hello: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

    def __init__(self, target: Target, rng: random.Random) -> None:
        super().__init__(target, rng)
        self._held = Held(600)

    def act(self) -> Iterable[str]:
        """Open one."""
        opened = _connected(self.target.tls_http_port)
        self._held.add(opened)
        opened.sendall(self.rng.choice((b"", self._half_hello)))
        return ["open"]

    def close(self) -> Iterable[str]:
        """Tell how many are open yet."""
        states = [_received(each) for each in self._held.all]
        self._held.close()
        return [f"at the end {state}" for state in states]


class SilentScrapers(Abuse):
    """Connections to the metrics that say nothing, beside one that reads them."""

    what = "metrics: read, beside 100 silent connections"
    per_s = 2

    def __init__(self, target: Target, rng: random.Random) -> None:
        super().__init__(target, rng)
        self._held = Held(100)

    def act(self) -> Iterable[str]:
        """Open one, and read the metrics."""
        self._held.add(_connected(self.target.metrics_port))
        url = f"http://127.0.0.1:{self.target.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            response.read()
        return [str(response.status)]

    def close(self) -> Iterable[str]:
        """Leave."""
        self._held.close()
        return ()


def _head(path: str, length: int) -> bytes:
    """Return the head of a request with a body of JSON."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


ABUSES: Final = (
    JsonBombs,
    SlowBodies,
    LeavingInMidUpload,
    NoHttp,
    TooLargeBodies,
    ForgedPaths,
    SilentTls,
    SilentScrapers,
)
