"""Downloads: one file over HTTP, from the first mirror that has it.

Nothing but a whole, verified file ever appears under the destination's name. Knows nothing of what
the files hold: the caller says what makes one right.
"""

import contextlib
import http.client
import os
import socket
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from mlpserve.datasets.dataset import DatasetError
from mlpserve.datasets.progress import progress

CONNECT_TIMEOUT_S = 5.0  # for a name's addresses together; without a network this is waited for
READ_TIMEOUT_S = 20.0  # without a single byte
MAX_DOWNLOAD_BYTES = 64 * 1024**2

_CHUNK_BYTES = 64 * 1024


class DownloadError(DatasetError):
    """The data is not to be had: no mirror gave it, or it cannot be stored."""


@dataclass(frozen=True)
class Limits:
    """Limits of a download: how long a mirror is waited for, and how much is taken from it."""

    connect_timeout_s: float = CONNECT_TIMEOUT_S
    read_timeout_s: float = READ_TIMEOUT_S
    max_bytes: int = MAX_DOWNLOAD_BYTES


DEFAULT_LIMITS = Limits()


def download(
    urls: Sequence[str],
    destination: Path,
    *,
    verify: Callable[[Path], None],
    limits: Limits = DEFAULT_LIMITS,
) -> str:
    """Fetch a file from the first of its mirrors that gives the right one.

    Shows its progress. Proxies are taken from the environment, as ``urllib`` does.

    Args:
        urls: Where the file can be had, best first; http and https only.
        destination: Where it belongs; the folder is created, a file there is replaced.
        verify: Raises ``DatasetError`` for a file that is not the right one.
        limits: Time-outs and the largest size.

    Returns:
        The URL that the file is from.

    Raises:
        DownloadError: No mirror gave the right file, or it cannot be stored; the destination is as
            it was.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(destination) as temporary:
            url = _fetch_from_any(urls, temporary, destination.name, verify, limits)
            temporary.replace(destination)
    except OSError as error:
        raise DownloadError(
            f"{destination}: cannot be stored: {error.strerror or error}"
        ) from error
    return url


@contextlib.contextmanager
def _temporary_beside(destination: Path) -> Iterator[Path]:
    """Lend the name of a new file in the same folder, so that renaming it is one atomic step."""
    handle, name = tempfile.mkstemp(
        dir=destination.parent, prefix=f"{destination.name}.", suffix=".part"
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _fetch_from_any(
    urls: Sequence[str],
    temporary: Path,
    name: str,
    verify: Callable[[Path], None],
    limits: Limits,
) -> str:
    failures = []
    for url in urls:
        try:
            _fetch(url, temporary, name, limits)
            verify(temporary)
        except DatasetError as error:
            failures.append(f"{urlsplit(url).hostname or url}: {error}")
        else:
            return url
    raise DownloadError(f"{name}: cannot be downloaded ({'; '.join(failures)})")


def _fetch(url: str, temporary: Path, name: str, limits: Limits) -> None:
    with (
        _open(url, limits) as response,
        progress(f"downloading {name}", "bytes") as note,
        temporary.open("wb") as file,
    ):
        announced, done = response.length, 0
        for chunk in _chunks(response, limits):
            file.write(chunk)
            done += len(chunk)
            note(done, announced or done)


def _chunks(response: http.client.HTTPResponse, limits: Limits) -> Iterator[bytes]:
    """Yield the body, and complain when it is too large or ends too early.

    Raises:
        DownloadError: The body is not to be had whole. An ``OSError`` of the caller, who writes
            to a disk, is not caught here.
    """
    announced = response.length
    if announced is not None and announced > limits.max_bytes:
        raise DownloadError(f"announces {announced} bytes, the limit is {limits.max_bytes}")
    count = 0
    with _network_errors():
        while chunk := response.read(_CHUNK_BYTES):
            count += len(chunk)
            if count > limits.max_bytes:
                raise DownloadError(f"sends more than the limit of {limits.max_bytes} bytes")
            yield chunk
    # http.client takes an early end for the end when it reads in pieces.
    if announced is not None and count != announced:
        raise DownloadError(f"the connection ended after {count} of {announced} bytes")


def _open(url: str, limits: Limits) -> http.client.HTTPResponse:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise DownloadError("expected an http or https URL")
    with _network_errors():
        response: http.client.HTTPResponse = _opener(limits).open(
            url, timeout=limits.connect_timeout_s
        )
    return response


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        error.close()  # it holds the connection
        raise DownloadError(f"answered {error.code} {error.reason}") from error
    except URLError as error:
        raise DownloadError(str(error.reason)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(str(error) or type(error).__name__) from error


def _opener(limits: Limits) -> urllib.request.OpenerDirector:
    """Return an opener that, unlike urlopen, follows no redirect to file: or ftp:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        _HTTPHandler(limits.read_timeout_s),
        _HTTPSHandler(limits.read_timeout_s),
    ):
        opener.add_handler(handler)
    return opener


class _HTTPConnection(http.client.HTTPConnection):
    """Gives up connecting early, but waits longer for the answer."""

    def __init__(self, host: str, *, read_timeout_s: float, **options: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(host, **options)
        self._read_timeout_s = read_timeout_s
        # http.client's own hook; were it to go away, a dead host would only cost more time.
        self._create_connection = _connect

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self._read_timeout_s)


class _HTTPSConnection(_HTTPConnection, http.client.HTTPSConnection):
    """The same over TLS, whose handshake is part of connecting."""


class _HTTPHandler(urllib.request.HTTPHandler):
    def __init__(self, read_timeout_s: float) -> None:
        super().__init__()
        self._read_timeout_s = read_timeout_s

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_HTTPConnection, read_timeout_s=self._read_timeout_s), req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, read_timeout_s: float) -> None:
        super().__init__()
        self._read_timeout_s = read_timeout_s

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_HTTPSConnection, read_timeout_s=self._read_timeout_s), req)


def _connect(
    address: tuple[str, int], timeout_s: float, source_address: tuple[str, int] | None = None
) -> socket.socket:
    """Connect to a host by one IPv4 and one IPv6 address, in the order the resolver prefers.

    A large host's name stands for a dozen addresses, and where a firewall drops packets each costs
    the whole time-out. One of each family is enough: they share their fate.
    """
    resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    firsts: dict[int, tuple[str, int]] = {}
    for family, _, _, _, place in resolved:
        firsts.setdefault(family, (str(place[0]), int(place[1])))
    failure = OSError("the name stands for no address")
    for place in firsts.values():
        try:
            return socket.create_connection(place, timeout_s / len(firsts), source_address)
        except OSError as error:
            failure = error
    raise failure
