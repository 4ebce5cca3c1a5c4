"""Stores to copy from: a folder, one that fails as it is told to, and one that speaks S3."""

import os
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from mlpserve.server.lifecycle.mirror import Mirror

TIMEOUT_S = 30.0
# What to do before a folder is listed, or before or after a file is opened, by these words.
Hooks = dict[str, Callable[[str], None]]


def nothing(path: str) -> None:
    """Leave a file alone."""


class HookedStore(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """A local folder in whose reading a test interferes."""

    protocol = "hooked"
    cachable = False
    hooks: ClassVar[Hooks] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(str(path).removeprefix("hooked://"))
        return stripped

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002 - theirs
        self.hooks.get("before list", nothing)(path)
        return super().ls(path, detail=detail, **options)

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.hooks.get("before open", nothing)(path)
        opened = super()._open(path, *arguments, **options)
        self.hooks.get("after open", nothing)(path)
        return opened


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    """Return what happens in the store of ``hooked_mirror``."""
    fsspec.register_implementation("hooked", HookedStore, clobber=True)
    HookedStore.hooks.clear()
    yield HookedStore.hooks
    HookedStore.hooks.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return where a mirror keeps its copies."""
    return tmp_path / "cache"


@pytest.fixture
def mirror(models: Path, tiny_models: None, cache: Path) -> Mirror:
    """Return a mirror of a folder with two versions of the tiny model."""
    return Mirror(f"file://{models}", cache)


@pytest.fixture
def hooked_mirror(models: Path, tiny_models: None, cache: Path, hooks: Hooks) -> Mirror:
    """Return a mirror of the same folder in whose reading ``hooks`` interfere."""
    return Mirror(f"hooked://{models}", cache)


class S3Server:
    """A real process on a real port that speaks the protocol of S3, and forgets all at its end."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
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


# Not longer: other tests look at which processes this one has.
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
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": running_s3.url})
    fsspec.filesystem("s3").mkdir("bucket")
    return running_s3


@pytest.fixture
def upload(models: Path) -> Callable[[], None]:
    """Return a function that copies the models folder to ``s3://bucket/models``."""

    def copy() -> None:
        fsspec.filesystem("s3").put(f"{models}/", "bucket/models/", recursive=True)

    return copy


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Return a function that runs a program in a process of its own and returns what it prints."""

    def run(program: str, **variables: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        ).stdout

    return run
