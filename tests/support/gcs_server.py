"""A server that speaks the protocol of Google Cloud Storage, and a bucket of it, as fixtures."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.registry import _registry

from ports import free_port

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def gcs_url() -> Iterator[str]:
    """Run the server in a process of its own, with a bucket ``bucket``; return its URL."""
    port = free_port()
    flags = ["start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    command = [sys.executable, "-m", "gcp_storage_emulator", *flags, "--default-bucket", "bucket"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        url = f"http://127.0.0.1:{port}"
        deadline_s = time.monotonic() + TIMEOUT_S
        while not answers(url):
            assert process.poll() is None
            assert time.monotonic() < deadline_s, "it does not answer"
        yield url
        process.kill()


def answers(url: str) -> bool:
    """Return whether a server answers there."""
    try:
        with urllib.request.urlopen(f"{url}/storage/v1/b?project=p", timeout=1):  # noqa: S310 - ours
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def gcs(gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return fsspec's file system of a bucket; it is empty, and found by its configuration."""
    filesystem = configure(gcs_url, monkeypatch)
    yield filesystem
    for path in filesystem.find("bucket"):
        filesystem.rm_file(path)


def configure(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have fsspec find a server, in this process and in those that it starts; return its files."""
    from gcsfs.core import GCSFileSystem  # noqa: PLC0415 - it takes half a second

    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    monkeypatch.setenv("FSSPEC_GS_ENDPOINT_URL", url)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon", "endpoint_url": url})
    # Newer releases ask for the kind of a bucket in a way that no emulator answers.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setitem(_registry, "gs", GCSFileSystem)
    return fsspec.filesystem("gs", use_listings_cache=False)


@pytest.fixture
def gcs_upload(gcs: Any, models: Path) -> Callable[[], None]:
    """Return a function that copies the models folder to ``gs://bucket/models``."""

    def copy() -> None:
        for path in models.rglob("*"):
            if path.is_file():
                gcs.pipe_file(f"bucket/models/{path.relative_to(models)}", path.read_bytes())

    return copy
