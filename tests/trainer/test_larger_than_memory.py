"""Sets that are not loaded: under a limit of memory that the set itself would exceed."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve.datasets import disk_images, npy
from mlpserve.datasets.disk_images import SMALL_BYTES
from mlpserve.datasets.npy import npy_header
from mlpserve.model.folder import weights_path
from mlpserve.trainer.arguments import job_config, train_parser
from mlpserve.trainer.job import run
from mlpserve.trainer.learning import training
from mlpserve.trainer.learning.shuffling import Sizes
from mlpserve.trainer.progress import Display
from mlpserve.trainer.signals import StopSignals

SIDE = 28
ROWS = 1_400_000  # 1.1 GB
TEST_ROWS = 1000
MEGABYTE = 1024**2
MAX_ADDRESSES = 900 * MEGABYTE  # of which the libraries alone take 215 MB
MAX_RESIDENT = 550 * MEGABYTE
FLAGS = "--name bars --layers 16 --epochs 2 --batch-size 512 --learning-rate 0.003 --threads 1"
LIMITED = (
    "import re, resource, sys; from pathlib import Path; "
    "from mlpserve.trainer.__main__ import main; "
    f"resource.setrlimit(resource.RLIMIT_AS, ({MAX_ADDRESSES},) * 2); "
    "code = main(sys.argv[1:]); "
    # Of this program alone; ru_maxrss would begin with what the process had that started it.
    "peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1]; "
    "print(int(peak) * 1024, file=sys.stderr); "
    "sys.exit(code)"
)


def bars(
    labels: "np.ndarray[tuple[int], np.dtype[Any]]", seed: int
) -> "np.typing.NDArray[np.uint8]":
    """Return noise with a bar of light where the class says, two rows high."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (len(labels), SIDE, SIDE), np.uint8)
    for label in range(10):
        images[labels == label, 2 * label : 2 * label + 2] += 120
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of images sorted by class, which is the hardest case for windows."""
    folder = tmp_path_factory.mktemp("large") / "bars"
    folder.mkdir()
    for name, rows in (("train", ROWS), ("test", TEST_ROWS)):
        labels = np.arange(rows) * 10 // rows
        np.save(folder / f"y_{name}.npy", labels.astype(np.uint8))
        with (folder / f"x_{name}.npy").open("wb") as file:
            file.write(npy_header((rows, SIDE, SIDE), np.dtype(np.uint8)))
            for start in range(0, rows, 20_000):
                file.write(bars(labels[start : start + 20_000], start).data)
    yield folder
    for path in folder.iterdir():
        path.unlink()


def result(models: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    with np.load(weights_path(models, "bars", 1), allow_pickle=False) as file:
        arrays = {name: file[name].tobytes() for name in file if name != "metadata"}
        metadata = json.loads(file["metadata"].item())
    del metadata["training"]["created_at"]
    return arrays, metadata


@pytest.mark.parametrize("flags", ["--warp slight", "--batch-size 0", "--recipe fast"])
def test_a_set_on_disk_gives_the_version_that_it_gives_in_memory(
    data: Path, tmp_path: Path, flags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(data) as arrays:
        (tmp_path / "thirds").mkdir()
        for name in arrays:
            np.save(tmp_path / "thirds" / f"{name}.npy", arrays[name])
    monkeypatch.setattr(training, "SIZES", Sizes(whole=0, window=24 * 64, block=24 * 5))

    def published(source: Path, models: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
        places = ["--data", str(source), "--models", str(models)]
        options = train_parser().parse_args([*places, "--name", "bars", *flags.split()])
        run(job_config(options), Display(), StopSignals())
        return result(models)

    expected = published(data, tmp_path / "in-memory")
    monkeypatch.setattr(npy, "SMALL_BYTES", 0)
    monkeypatch.setattr(disk_images, "SMALL_BYTES", 0)
    found = published(tmp_path / "thirds", tmp_path / "on-disk")
    assert found == expected


def limited(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", LIMITED, *FLAGS.split(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def published(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the models folder of a run within the limit."""
    assert folder.joinpath("x_train.npy").stat().st_size > max(MAX_ADDRESSES, SMALL_BYTES)
    models = tmp_path_factory.mktemp("models")
    done = limited("--data", folder, "--models", models)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.splitlines()[-1]) < MAX_RESIDENT
    return models


@pytest.mark.exhaustive
def test_a_set_larger_than_the_limit_of_memory_is_learned(published: Path) -> None:
    _, metadata = result(published)
    assert metadata["training"]["test_accuracy"] > 0.99
    assert (published / "bars" / "1" / "report.html").exists()


@pytest.mark.exhaustive
def test_the_limit_is_one_that_a_loaded_set_exceeds(folder: Path, tmp_path: Path) -> None:
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.iterdir()}
    np.savez(tmp_path / "bars.npz", **arrays)  # which is loaded
    done = limited("--data", tmp_path / "bars.npz", "--models", tmp_path / "models")
    assert done.returncode == 1
    assert "Unable to allocate 1.02 GiB" in done.stderr


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_from_memory_it_gives_the_same_bits(published: Path, folder: Path, tmp_path: Path) -> None:
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.iterdir()}
    np.savez(tmp_path / "bars.npz", **arrays)
    command = [sys.executable, "-m", "mlpserve.trainer", *FLAGS.split()]
    command += ["--data", str(tmp_path / "bars.npz"), "--models", str(tmp_path / "models")]
    subprocess.run(command, check=True, capture_output=True, timeout=500)
    assert result(tmp_path / "models") == result(published)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    published: Path, folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mlpserve.trainer", *FLAGS.split(), "--log-format", "json"]
    command += ["--data", str(folder), "--models", str(tmp_path / "models"), "--resume"]
    command += ["--checkpoint", str(tmp_path / "run"), "--checkpoint-every", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "epoch":
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
        assert process.wait(timeout=60) == 75
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500)
    assert "resumed" in done.stdout
    assert result(tmp_path / "models") == result(published)
