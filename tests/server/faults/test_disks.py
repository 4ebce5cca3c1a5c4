"""Disks that are full or can only be read: of the log, of the models, of copies from a store."""

import errno
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from fault_table import NoteFault
from mlpserve.model.atomic_files import TEMPORARY_PREFIX
from mlpserve.model.network import Network
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from ports import free_port
from steady_load import SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]
Publish = Callable[..., None]

TIMEOUT_S = 60.0
SIZE_BYTES = 256 * 1024


@contextmanager
def suppress_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        assert error.errno == errno.ENOSPC


class Disk:
    """A small one of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / ".filler"

    def fill(self, *, but_bytes: int = 0) -> None:
        with self._filler.open("wb", buffering=0) as file, suppress_full():
            while True:
                file.write(bytes(4096))
        os.truncate(self._filler, self._filler.stat().st_size - but_bytes)

    def make_room(self) -> None:
        self._filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self._mount("remount,ro")
        yield
        self._mount("remount,rw")

    def mount(self) -> bool:
        """Return whether it could be made; most users may not."""
        return self._mount(f"size={SIZE_BYTES}", "-t", "tmpfs") == 0

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)  # noqa: S607

    def _mount(self, options: str, *how: str) -> int:
        command = ["mount", *how, "-o", options, "tmpfs", str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Return a disk that is soon full."""
    made = Disk(tmp_path / "disk")
    made.folder.mkdir()
    if not made.mount():
        if os.environ.get("CI"):
            pytest.fail("CI must fill disks, but may not make one")
        pytest.skip("makes a disk, which only root may")
    yield made
    made.unmount()


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]


def lines_dropped(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as page:
        text = page.read().decode()
    (value,) = re.findall(r"^mlpserve_log_lines_dropped_total (\S+)$", text, re.MULTILINE)
    return float(value)


@pytest.mark.exhaustive
def test_a_log_on_a_full_disk_keeps_nobody_waiting(
    models: Path, tiny_models: None, network: Network, note_fault: NoteFault
) -> None:
    port, metrics_port, refused = free_port(), free_port(), 15
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models), "--workers", "2"]
    command += ["--port", str(port), "--metrics-port", str(metrics_port)]
    with (
        Path("/dev/full").open("wb") as log,
        subprocess.Popen(command, stderr=log) as process,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        grpc.channel_ready_future(channel).result(TIMEOUT_S)
        load = SteadyLoad(f"127.0.0.1:{port}", network)
        load.wait_for_answers()
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(refused):
            with pytest.raises(grpc.RpcError):
                stub.Predict(prediction_pb2.PredictRequest(), timeout=TIMEOUT_S)
        load.wait_for_answers()
        figures, dropped = load.stop(), lines_dropped(metrics_port)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    note_fault("a log on a full disk", figures, f"{dropped:.0f} lines were dropped, and counted")
    assert dropped >= refused
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors


@pytest.mark.exhaustive
def test_a_version_cut_short_by_a_full_disk_is_served_when_it_is_whole(
    run_server: RunServer,
    publish: Publish,
    models: Path,
    *,
    disk: Disk,
    network: Network,
    note_fault: NoteFault,
) -> None:
    publish("tiny", versions=2)
    served = disk.folder / "models"
    (served / "tiny").mkdir(parents=True)
    shutil.copytree(models / "tiny" / "1", served / "tiny" / "1")
    with run_server("--workers", "2", "--models", str(served)) as server:
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        disk.fill(but_bytes=4096)
        with pytest.raises((OSError, shutil.Error)):
            shutil.copytree(models / "tiny" / "2", served / "tiny" / "2")
        server.wait_for_line("not served: tiny version 2: ")
        load.wait_for_answers()
        disk.make_room()
        shutil.copytree(models / "tiny" / "2", served / "tiny" / "2", dirs_exist_ok=True)
        server.wait_for_line("changed: serving tiny version 2 and 1")
        with disk.read_only():
            load.wait_for_answers()
        figures = load.stop()
        server.stop()
    note_fault(
        "the disk of the models folder full while a version is copied there, then read-only",
        figures,
        "half a version is not served, and is as soon as it is whole",
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors


@pytest.mark.exhaustive
def test_a_cache_without_room_gets_no_half_version_and_the_whole_one_later(
    run_server: RunServer,
    publish: Publish,
    models: Path,
    *,
    disk: Disk,
    network: Network,
    note_fault: NoteFault,
) -> None:
    publish("tiny", versions=1)
    cache = disk.folder / "cache"
    store = ("--models", models.as_uri(), "--cache", str(cache), "--store-period-s", "0.2")
    with run_server("--workers", "2", *store) as server:
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        disk.fill()
        publish("tiny", versions=1)
        server.wait_for_line("No space left on device")
        load.wait_for_answers()
        assert not (cache / "tiny" / "2").exists()
        disk.make_room()
        server.wait_for_line("changed: serving tiny version 2 and 1")
        with disk.read_only():
            publish("tiny", versions=1)
            server.wait_for_line("Read-only file system")
            load.wait_for_answers()
        server.wait_for_line("changed: serving tiny version 3 and 2")
        figures = load.stop()
        server.stop()
    assert unfinished(cache) == []
    note_fault(
        "the disk of the copies from a store full, then read-only",
        figures,
        "no half version is left; new ones are served as soon as there is room",
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors


def test_a_volume_of_models_that_is_not_mounted_any_more_takes_no_model_with_it(
    run_server: RunServer,
    models: Path,
    publish: Publish,
    network: Network,
    note_fault: NoteFault,
) -> None:
    publish("tiny", versions=1)
    with run_server("--workers", "2") as server:
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        volume = models.with_name("volume")
        models.rename(volume)
        models.mkdir()
        server.wait_for_line("has no model any more, of 1, which must be a mistake")
        load.wait_for_answers()
        models.rmdir()
        volume.rename(models)
        publish("tiny", versions=1)
        server.wait_for_line("changed: serving tiny version 2 and 1")
        figures = load.stop()
        server.stop()
    note_fault(
        "the volume of the models unmounted: an empty folder in its place",
        figures,
        "said once; all that was served goes on being served, and what comes back is followed",
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
