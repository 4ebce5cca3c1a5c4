import contextlib
import errno
import http.server
import io
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlpserve.datasets import DatasetError, progress
from mlpserve.datasets.download import DownloadError, Limits, download

CONTENT = b"the one right content" * 10_000  # more than one piece
LIMITS = Limits(connect_timeout_s=2, read_timeout_s=2, max_bytes=2 * len(CONTENT))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the path says."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        getattr(self, self.path.strip("/").replace("-", "_"))()

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""

    def right(self) -> None:
        self._answer(CONTENT)

    def wrong(self) -> None:
        self._answer(b"<html>Log in to the guest network</html>")

    def missing(self) -> None:
        self.send_error(404)

    def truncated(self) -> None:
        self._answer(CONTENT[:-1000], length=len(CONTENT))

    def without_length(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT)

    def announces_too_much(self) -> None:
        self._answer(b"", length=LIMITS.max_bytes + 1)

    def sends_too_much(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(bytes(LIMITS.max_bytes + 1))

    def hangs(self) -> None:
        self._answer(b"", length=len(CONTENT))
        self.server.ending.wait(5)  # then it ends the connection, which is not silence

    def nonsense(self) -> None:
        self.wfile.write(b"SSH-2.0\r\n")

    def moved(self) -> None:
        self._redirect("/right")

    def moved_to_a_file(self) -> None:
        self._redirect(Path(__file__).as_uri())

    def moved_to_ftp(self) -> None:
        self._redirect("ftp://localhost/right")

    def _redirect(self, location: str) -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.end_headers()

    def _answer(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requested: list[str] = []
        self.ending = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for ending in set(threading.enumerate()) - before:
        ending.join(5)  # that of rich is told to end, and not waited for
    assert set(threading.enumerate()) <= before


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(no_thread_is_left: None) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.ending.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "content.gz"


def verify(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise DatasetError("not the right content")


def refused_url() -> str:
    """Return a URL on whose port nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/right"


def fails(urls: list[str], destination: Path, limits: Limits = LIMITS) -> str:
    """Return why a download fails, once nothing of it is left."""
    with pytest.raises(DownloadError) as caught:
        download(urls, destination, verify=verify, limits=limits)
    assert list(destination.parent.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("path", ["right", "without-length", "moved"])
def test_the_file_is_all_that_appears(server: Server, destination: Path, path: str) -> None:
    url = download([server.url(path)], destination, verify=verify, limits=LIMITS)
    assert url == server.url(path)
    assert destination.read_bytes() == CONTENT
    assert list(destination.parent.iterdir()) == [destination]


def test_the_first_mirror_is_enough(server: Server, destination: Path) -> None:
    urls = [server.url("right"), server.url("missing")]
    download(urls, destination, verify=verify, limits=LIMITS)
    assert server.requested == ["/right"]


@pytest.mark.parametrize("first", ["missing", "wrong", "truncated", "sends-too-much"])
def test_the_second_mirror_helps_out(server: Server, destination: Path, first: str) -> None:
    urls = [server.url(first), server.url("right")]
    assert download(urls, destination, verify=verify, limits=LIMITS) == urls[1]
    assert destination.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "answered 404 Not Found"),
        ("wrong", "not the right content"),
        ("truncated", "the connection ended after 209000 of 210000 bytes"),
        ("announces-too-much", "announces 420001 bytes, the limit is 420000"),
        ("sends-too-much", "sends more than the limit of 420000 bytes"),
        ("nonsense", "SSH-2.0"),
        ("moved-to-a-file", "answered 302"),
        ("moved-to-ftp", "unknown url type: ftp"),
    ],
)
def test_why_a_mirror_failed_is_said(
    server: Server, destination: Path, path: str, reason: str
) -> None:
    message = fails([server.url(path)], destination)
    assert message.startswith("content.gz: cannot be downloaded (127.0.0.1: ")
    assert reason in message


def test_a_server_that_falls_silent_is_given_up(server: Server, destination: Path) -> None:
    limits = Limits(connect_timeout_s=60, read_timeout_s=0.1)
    assert "timed out" in fails([server.url("hangs")], destination, limits)


def test_a_refused_connection_is_said(destination: Path) -> None:
    assert "Connection refused" in fails([refused_url()], destination)


def test_a_handshake_that_never_comes_is_given_up_as_early_as_connecting(
    destination: Path,
) -> None:
    limits = Limits(connect_timeout_s=0.1, read_timeout_s=60)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/right"
        assert "timed out" in fails([url], destination, limits)


def test_a_mirror_without_tls_is_not_trusted(server: Server, destination: Path) -> None:
    url = server.url("right").replace("http:", "https:")
    assert "SSL" in fails([url], destination)
    assert server.requested == []


def test_a_host_that_drops_packets_costs_one_time_out_however_many_addresses_it_has(
    destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    tried: list[float] = []

    def many(host: str, port: int, *arguments: int, **options: int) -> list[Any]:
        hosts = ["127.0.0.1", "::1"] * 16 if host == "mirror.test" else [host]
        return [place for name in hosts for place in resolve(name, port, *arguments, **options)]

    def drop(self: socket.socket, _: object) -> None:
        tried.append(self.gettimeout() or 0)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "getaddrinfo", many)
    monkeypatch.setattr(socket.socket, "connect", drop)
    assert "timed out" in fails(["http://mirror.test/right"], destination)
    assert 0 < sum(tried) <= LIMITS.connect_timeout_s


def test_every_mirror_and_its_reason_are_listed(server: Server, destination: Path) -> None:
    urls = [refused_url(), server.url("missing"), "file:///etc/hostname", "ftp://mirror.test/x"]
    assert fails(urls, destination) == (
        "content.gz: cannot be downloaded (127.0.0.1: "
        f"[Errno {errno.ECONNREFUSED}] Connection refused; "
        "127.0.0.1: answered 404 Not Found; "
        "file:///etc/hostname: expected an http or https URL; "
        "mirror.test: expected an http or https URL)"
    )


def test_a_file_that_was_there_outlives_a_failure(server: Server, destination: Path) -> None:
    destination.parent.mkdir()
    destination.write_bytes(b"older")
    with pytest.raises(DownloadError):
        download([server.url("truncated")], destination, verify=verify, limits=LIMITS)
    assert destination.read_bytes() == b"older"
    assert list(destination.parent.iterdir()) == [destination]


def test_an_interrupt_leaves_nothing_behind(server: Server, destination: Path) -> None:
    def interrupted(path: Path) -> None:
        assert path.stat().st_size == len(CONTENT)
        signal.raise_signal(signal.SIGINT)

    # A shell starts jobs in the background with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            download([server.url("right")], destination, verify=interrupted, limits=LIMITS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(destination.parent.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(server: Server, destination: Path) -> None:
    # A limit on the size of files fails a write as a full disk does, with another number.
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, before[1]))
    try:
        message = fails([server.url("right"), server.url("missing")], destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert message == f"{destination}: cannot be stored: File too large"
    assert server.requested == ["/right"]  # another mirror would not have helped


def test_a_folder_that_cannot_be_made_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    destination = tmp_path / "cache" / "mnist" / "content.gz"
    with pytest.raises(DownloadError, match=f"{destination}: cannot be stored: Not a directory"):
        download([server.url("right")], destination, verify=verify, limits=LIMITS)
    assert server.requested == []


def test_nothing_is_printed_without_a_terminal(
    server: Server, destination: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    download([server.url("right")], destination, verify=verify, limits=LIMITS)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_a_bar_on_standard_error(
    server: Server, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_DELAY_S", 0)
    download([server.url("right")], destination, verify=verify, limits=LIMITS)
    assert "downloading content.gz" in terminal.getvalue()
    assert "0.2/0.2 MB" in terminal.getvalue()
