"""A server that speaks the protocol of S3, and a bucket of it, as fixtures."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from ports import free_port

TIMEOUT_S = 60.0


class S3Server:
    """A real process on a real port that speaks the protocol of S3, and forgets all at its end."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline_s = time.monotonic() + TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None
            assert time.monotonic() < deadline_s, "it does not answer"

    def stop(self) -> None:
        """Kill it; nobody is told."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT_S)
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/", timeout=1):  # noqa: S310 - ours
                return True
        except (urllib.error.URLError, OSError):
            return False

    def reset(self) -> None:
        """Forget all."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 - ours
            pass


@pytest.fixture(scope="module")
def running_s3() -> Iterator[S3Server]:
    """Return the process; ``s3`` is what to use."""
    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(running_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Return an S3 with an empty bucket, ``bucket``, that fsspec finds by its configuration."""
    running_s3.reset()
    make_bucket(running_s3, monkeypatch)
    return running_s3


@pytest.fixture
def own_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Return an S3 like ``s3`` that no other test has, so that it may be stopped."""
    server = S3Server()
    server.start()
    make_bucket(server, monkeypatch)
    yield server
    server.stop()


def make_bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a bucket that fsspec finds, in this process and in those that it starts."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", server.url)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server.url})
    fsspec.filesystem("s3").mkdir("bucket")


@pytest.fixture
def upload(models: Path) -> Callable[[], None]:
    """Return a function that copies the models folder to ``s3://bucket/models``."""

    def copy() -> None:
        fsspec.filesystem("s3").put(f"{models}/", "bucket/models/", recursive=True)

    return copy
