"""Trains on a set that is larger than memory, and watches the memory that it takes.

.venv/bin/python benchmarks/training_larger_than_memory.py --folder /tmp/big --curve curve.csv

It makes ten million images of 784 bytes, 7.84 GB, learns from them for an epoch with
`mlpserve-train`, and prints the memory over time. Then it compares the speed of an epoch on disk to
that of the same images in memory, at a size that fits, in turn in one process.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from harness.errors import BenchmarkError
from harness.tables import markdown_table
from mlpserve.datasets import Split
from mlpserve.datasets.dataset import Images
from mlpserve.datasets.drawn import draw_digits
from mlpserve.datasets.npy import npy_header, read_npy_header
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.learning.shuffling import SIZES
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.recipes import FAST

_EXIT_FAILED: Final = 1
_DRAWN: Final = 20_000
_TEST: Final = 10_000
_SEED: Final = 20
_AT_ONCE: Final = 20_000
_SAMPLE_S: Final = 0.2
_ROWS_SHOWN: Final = 16
_MEGABYTE: Final = 1e6
_KILOBYTE: Final = 1024
_BAR: Final = 40  # as wide as the size of the images


class Sample(NamedTuple):
    """The memory of a process at a time, in megabytes.

    Attributes:
        seconds: Since it began.
        event: What it said last.
        resident: All that it has in memory, pages of files among them, as top shows it.
        of_files: Those pages.
    """

    seconds: float
    event: str
    resident: float
    of_files: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    options = _parser().parse_args(arguments)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            if options.images:
                _report_run(Path(folder), options)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            if options.fitting:
                _report_ratio(Path(folder), options)
    except BenchmarkError as error:
        print(f"training_larger_than_memory.py: {error}", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def make_data(folder: Path, count: int) -> None:
    """Write images and labels: drawn digits with noise, of which most of the pixels are black.

    They are the same for the same count wherever NumPy computes alike.
    """
    digits = draw_digits(_DRAWN, seed=_SEED)
    rng = np.random.default_rng(_SEED)
    for images, labels, size in (("x_train", "y_train", count), ("x_test", "y_test", _TEST)):
        chosen = rng.integers(0, _DRAWN, size)
        np.save(folder / f"{labels}.npy", digits.labels[chosen].astype(np.uint8))
        with (folder / f"{images}.npy").open("wb") as file:
            file.write(npy_header((size, *digits.images.shape[1:]), digits.images.dtype))
            for start in range(0, size, _AT_ONCE):
                file.write(_noisy(digits.images[chosen[start : start + _AT_ONCE]], rng).data)


def _noisy(greys: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return images whose ink is fainter here and there, by up to a quarter."""
    noise = np.frombuffer(rng.bytes(greys.size), np.uint8).reshape(greys.shape)
    faded: npt.NDArray[np.uint8] = greys - ((greys >> 2) & noise)
    return faded


def _report_run(folder: Path, options: argparse.Namespace) -> None:
    began_s = time.monotonic()
    make_data(folder, options.images)
    size = (folder / "x_train.npy").stat().st_size
    print(
        f"{options.images:,} images, {size / 1e9:.2f} GB, "
        f"made in {time.monotonic() - began_s:.0f} s",
        flush=True,
    )
    samples, events = run_trainer(folder, options.epochs, options.threads)
    if options.curve is not None:
        with options.curve.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(Sample._fields)
            rows.writerows(samples)
    step = max(1, len(samples) // _ROWS_SHOWN)
    shown = [*samples[::step], *([samples[-1]] if (len(samples) - 1) % step else [])]
    head = ("seconds", "after", "MB resident", "of these of files", "")
    print(markdown_table(head, [_row(sample, size) for sample in shown]))
    print(f"most resident: {max(sample.resident for sample in samples):,.0f} MB")
    for event in events:
        if event["event"] == "epoch":
            print(
                f"epoch {event['epoch'] + 1}: {event['images_per_s']:,.0f} images/s, validation "
                f"accuracy {100 * event['validation_accuracy']:.2f} %"
            )
    print(f"test accuracy {100 * events[-1]['test_accuracy']:.2f} %", flush=True)


def run_trainer(
    folder: Path, epochs: int, threads: int
) -> tuple[list[Sample], list[Mapping[str, Any]]]:
    """Train on the images of a folder; return the memory over time, and what the trainer said.

    Raises:
        BenchmarkError: It fails.
    """
    command = [sys.executable, "-m", "mlpserve.trainer", "--data", str(folder)]
    command += ["--models", str(folder / "models"), "--name", "digits", "--log-format", "json"]
    command += ["--recipe", "fast", "--epochs", str(epochs), "--threads", str(threads)]
    samples: list[Sample] = []
    log = folder / "events"
    began_s = time.monotonic()
    with log.open("w") as output, subprocess.Popen(command, stdout=output) as trainer:
        while trainer.poll() is None:
            events = _events(log)
            last = events[-1]["event"] if events else "start"
            memory = _memory(trainer.pid)
            if memory is not None:
                samples.append(Sample(time.monotonic() - began_s, last, *memory))
            time.sleep(_SAMPLE_S)
    if trainer.returncode:
        raise BenchmarkError(f"mlpserve-train ended with {trainer.returncode}")
    return samples, _events(log)


def _events(log: Path) -> list[Mapping[str, Any]]:
    return [
        json.loads(line) for line in log.read_text().splitlines(keepends=True) if line[-1] == "\n"
    ]


def _memory(process: int) -> tuple[float, float] | None:
    """Return what a process has in memory, and how much of that are pages of files, in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    if "VmRSS" not in values:
        return None  # it has ended
    resident, of_files = (int(values[name].split()[0]) for name in ("VmRSS", "RssFile"))
    return resident * _KILOBYTE / _MEGABYTE, of_files * _KILOBYTE / _MEGABYTE


def _row(sample: Sample, size: int) -> tuple[str, ...]:
    bar = "#" * round(_BAR * sample.resident * _MEGABYTE / size)
    facts = (f"{sample.seconds:.0f}", sample.event, f"{sample.resident:,.0f}")
    return (*facts, f"{sample.of_files:,.0f}", bar)


def _report_ratio(folder: Path, options: argparse.Namespace) -> None:
    make_data(folder, options.fitting)
    labels = np.load(folder / "y_train.npy").astype(np.int64)
    loaded = Split(np.load(folder / "x_train.npy"), labels)
    with (folder / "x_train.npy").open("rb") as file:
        stored = read_npy_header(file).images(folder / "x_train.npy")
    on_disk = Split(cast("Images", stored), labels)
    whole = replace(SIZES, whole=loaded.images.nbytes)
    windows = replace(SIZES, whole=0)
    with threadpool_limits(1), ThreadPool(options.threads) as pool:
        spec = InputSpec(loaded.images.shape[1:])
        recipe = replace(FAST, epochs=options.rounds + 1)
        network = initial_network(recipe, spec.values_per_image, int(labels.max()) + 1)
        trainings = {
            name: Training(recipe, network, split, spec, pool=pool, sizes=sizes)
            for name, split, sizes in (
                ("on disk", on_disk, windows),
                ("in memory", loaded, windows),
                ("in memory, shuffled whole", loaded, whole),
            )
        }
        rounds = [
            [_epoch(training) for training in trainings.values()] for _ in range(options.rounds + 1)
        ]
    _print_ratios(list(trainings), rounds[1:], options.fitting)


def _epoch(training: Training) -> tuple[float, float]:
    """Return how long an epoch takes, and how much of the processors' time, in seconds."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    training.step()
    while not training.is_between_epochs:
        training.step()
    return time.perf_counter() - began_s, time.process_time() - began_cpu_s


def _print_ratios(
    names: Sequence[str], rounds: Sequence[Sequence[tuple[float, float]]], count: int
) -> None:
    rows = []
    for index, name in enumerate(names):
        seconds = statistics.median(each[index][0] for each in rounds)
        ratios = [
            statistics.median(each[index][kind] / each[1][kind] for each in rounds)
            for kind in (0, 1)
        ]
        rows.append((name, f"{count / seconds:,.0f}", *(f"{ratio:.2f}" for ratio in ratios)))
    print(f"{count:,} images, medians of {len(rounds)} epochs each, in turn:")
    print(markdown_table(("images", "images/s", "time", "processor time"), rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training_larger_than_memory.py",
        description="Train on a set that is larger than memory, and watch the memory.",
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the images are made, and removed again"
    )
    parser.add_argument(
        "--images", type=int, default=10_000_000, metavar="N", help="0 for no run; default: 10 M"
    )
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--curve", type=Path, metavar="FILE", help="write the memory as CSV")
    parser.add_argument(
        "--fitting",
        type=int,
        default=1_000_000,
        metavar="N",
        help="images to compare with memory; 0 for no comparison; default: 1 M",
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    return parser


if __name__ == "__main__":
    sys.exit(main())
