"""A server whose models are in an object store: it runs the program that copies them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve.client import Client
from mlpserve.model.folder import versions
from mlpserve.model.sync.synchronizer import Synchronizer
from mlpserve.server.models.sync_process import SyncProcess
from s3_server import own_s3, running_s3, s3, upload

__all__ = ["own_s3", "running_s3", "s3", "upload"]

URL = "s3://bucket/models"
IMAGE = np.zeros((1, 6), np.uint8)
TIMEOUT_S = 30.0
COMPILED = ("aiohttp", "yarl")  # parts of s3fs

RunServer = Callable[..., AbstractContextManager[Any]]
alone_and_with_workers = pytest.mark.parametrize(
    "workers", ["1", pytest.param("2", marks=pytest.mark.exhaustive)]
)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s


def sync_processes(of: int) -> list[int]:
    """Return the programs that a process runs to copy from a store."""
    return [each for each in children(of) if "mlpserve.model" in command_line(each)]


def children(of: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(of)],  # noqa: S607 - which one does not matter
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return [int(each) for each in listed.stdout.split()]


def command_line(process: int) -> list[str]:
    return Path(f"/proc/{process}/cmdline").read_text().split("\0")


def has_ended(process: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True


def imports_a_library_of_stores(process: int) -> bool:
    """Return whether a process has mapped the compiled parts of one, which all of them have."""
    return any(f"/{name}/" in Path(f"/proc/{process}/maps").read_text() for name in COMPILED)


@pytest.fixture
def serve_store(run_server: RunServer, tmp_path: Path) -> RunServer:
    """Return a function that runs a server of a store, and sees that nothing of it is left."""

    @contextmanager
    def run(url: str, *flags: str) -> Iterator[Any]:
        store = ("--models", url, "--cache", str(tmp_path / "cache"))
        with run_server(*store, "--store-period-s", "0.1", *flags) as server:
            started = children(server.process.pid)
            yield server
        wait_until(lambda: all(has_ended(each) for each in started))

    return run


@pytest.fixture
def serve_bucket(serve_store: RunServer) -> RunServer:
    """Return ``serve_store`` of the bucket."""
    return partial(serve_store, URL)


@pytest.fixture
def url_of_folder(models: Path) -> str:
    """Return the models folder as a store, where it does not matter which store it is."""
    return f"file://{models}"


@alone_and_with_workers
def test_a_server_follows_a_bucket_and_imports_none_of_its_libraries(
    serve_bucket: RunServer,
    s3: Any,
    upload: Callable[[], None],
    publish: Callable[..., None],
    workers: str,
) -> None:
    publish("tiny", versions=1)
    upload()
    with serve_bucket("--workers", workers) as server, Client(server.address) as client:
        assert client.predict(IMAGE).model_version == 1
        publish("tiny", versions=1)
        upload()
        wait_until(lambda: client.predict(IMAGE).model_version == 2)
        (sync,) = sync_processes(server.process.pid)
        assert imports_a_library_of_stores(sync)
        others = {server.process.pid, *children(server.process.pid)} - {sync}
        assert len(others) == {"1": 1, "2": 3}[workers]
        assert not any(imports_a_library_of_stores(each) for each in others)
        server.stop()
    assert any("s3://bucket/models: tiny version 2: copied" in line for line in server.lines)


@pytest.fixture
def sync_of(tmp_path: Path) -> Iterator[Callable[[str], SyncProcess]]:
    """Return a function that makes what keeps ``copy`` equal to a store; it is stopped then."""
    made = list[SyncProcess]()

    def make(url: str) -> SyncProcess:
        made.append(SyncProcess(url, tmp_path / "copy", period_s=1000, max_version_mb=1))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_the_first_look_is_waited_for(
    sync_of: Callable[[str], SyncProcess], models: Path, tiny_models: None, tmp_path: Path
) -> None:
    sync_of(f"file://{models}").start(timeout_s=TIMEOUT_S)
    assert versions(tmp_path / "copy", "tiny") == [2, 1]


def test_a_store_that_does_not_answer_is_not_waited_for_long(
    sync_of: Callable[[str], SyncProcess],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sync = sync_of(f"ftp://127.0.0.1:{silent.getsockname()[1]}/models")
        silent.settimeout(TIMEOUT_S)
        sync.start(timeout_s=0.01)
        connection, _ = silent.accept()  # it goes on looking
        with connection:
            sync.stop()
            assert connection.recv(1) == b""  # it has ended


@pytest.mark.exhaustive  # the library tries again for some seconds
def test_a_server_goes_on_serving_without_its_bucket(
    serve_bucket: RunServer, own_s3: Any, upload: Callable[[], None], tiny_models: None
) -> None:
    upload()
    with serve_bucket() as server, Client(server.address) as client:
        own_s3.stop()
        server.wait_for_line("cannot be listed")
        assert client.predict(IMAGE).model_version == 2


@pytest.mark.exhaustive  # as above
def test_a_server_that_starts_without_its_bucket_serves_what_was_copied(
    serve_bucket: RunServer,
    own_s3: Any,
    upload: Callable[[], None],
    tiny_models: None,
    tmp_path: Path,
) -> None:
    upload()
    Synchronizer(URL, tmp_path / "cache").sync()
    own_s3.stop()
    with serve_bucket() as server, Client(server.address) as client:
        assert client.predict(IMAGE).model_version == 2


@pytest.mark.exhaustive  # several processes
def test_several_workers_serve_a_bucket_that_is_empty_at_first(
    serve_bucket: RunServer, s3: Any, upload: Callable[[], None], publish: Callable[..., None]
) -> None:
    with serve_bucket("--workers", "2") as server:
        assert f"but {URL} has no " in server.lines[-1]
        publish("tiny", versions=1)
        upload()
        with Client(server.address, timeout_s=TIMEOUT_S) as client:
            wait_until(lambda: bool(client.models()))
            assert client.predict(IMAGE).model_version == 1
        server.stop()


@pytest.mark.exhaustive
def test_a_program_that_dies_is_started_again_and_goes_on_copying(
    serve_store: RunServer, url_of_folder: str, publish: Callable[..., None]
) -> None:
    publish("tiny", versions=1)
    with (
        serve_store(url_of_folder, "--metrics-port", "0") as server,
        Client(server.address) as client,
    ):
        page = next(found[0] for line in server.lines if (found := re.search(r"http://\S+", line)))
        (sync,) = sync_processes(server.process.pid)
        os.kill(sync, signal.SIGKILL)
        publish("tiny", versions=1)
        ended = f"mlpserve-models sync {url_of_folder} ended (SIGKILL); it is started again"
        server.wait_for_line(ended)
        wait_until(lambda: client.predict(IMAGE).model_version == 2)
        with urllib.request.urlopen(page, timeout=10) as response:  # noqa: S310 - our own
            assert "\nmlpserve_sync_restarts_total 1" in response.read().decode()
        server.stop()


def test_the_program_ends_with_a_server_that_is_killed(
    serve_store: RunServer, url_of_folder: str, tiny_models: None
) -> None:
    with serve_store(url_of_folder) as server:
        (sync,) = sync_processes(server.process.pid)
        server.process.kill()
        wait_until(lambda: has_ended(sync))


def test_a_hangup_has_the_store_looked_at_at_once(
    serve_store: RunServer, url_of_folder: str, publish: Callable[..., None]
) -> None:
    publish("tiny", versions=1)
    waiting = serve_store(url_of_folder, "--store-period-s", "1000")
    with waiting as server, Client(server.address) as client:
        publish("tiny", versions=1)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: client.predict(IMAGE).model_version == 2)


@pytest.mark.parametrize(
    ("workers", "url", "cache", "words"),
    [
        ("1", "az://bucket", "new", "models: what reads az:// is not installed: pip install "),
        ("2", "file:///models", "file", "cache: {} cannot be used: File exists"),
    ],
    ids=["URL", "folder"],
)
def test_a_url_or_folder_that_cannot_be_used_ends_the_start_in_words_of_the_settings(
    tmp_path: Path, workers: str, url: str, cache: str, words: str
) -> None:
    (tmp_path / "file").touch()
    flags = ["--models", url, "--cache", str(tmp_path / cache), "--workers", workers]
    ended = subprocess.run(
        [sys.executable, "-m", "mlpserve.server", "--port", "0", *flags],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 1
    assert f"mlpserve-serve: {words.format(tmp_path / cache)}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.exhaustive
@alone_and_with_workers
def test_a_running_server_shows_no_secret_of_its_store(
    run_server: RunServer, tmp_path: Path, workers: str
) -> None:
    url = "ftp://somebody:geheim@127.0.0.1:1/models?sig=geheim"
    flags = ("--cache", str(tmp_path), "--log-level", "debug", "--workers", workers)
    with run_server("--models", url, *flags) as server:
        (sync,) = sync_processes(server.process.pid)
        known = (
            Path(f"/proc/{sync}/cmdline").read_text() + Path(f"/proc/{sync}/environ").read_text()
        )
        server.stop()
        said = "".join(server.lines)
    assert "ftp://***@127.0.0.1:1/models?***: cannot be listed" in said
    assert "geheim" not in said + known
    assert "somebody" not in said + known
