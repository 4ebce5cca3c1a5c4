"""Benchmark of training, beside the libraries that people would take instead.

    training.py -> a process per measurement (training_worker.py) -> medians, ratios, tables

`make benchmark-training` runs it; README.md beside this file says what is measured and how.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from harness.arguments import participants, positive
from harness.errors import BenchmarkError
from harness.machine import describe_machine
from harness.noise import NoiseMeter
from harness.tables import check_output, write_section, write_whole
from mlpserve.datasets import Dataset, DatasetError, load_dataset
from mlpserve.model.inputs import InputSpec
from mlpserve.model.processors import granted_processors
from trainers.contest import Measured, Runner, Shape
from trainers.participants import EXACT_FORM, FAST_FORM, LIBRARIES, OURS, SEED_FORMS
from trainers.report import Report
from trainers.results import DataShape, library_rows, peaks, seed_rows

_SECTION: Final = "training results"
_EXIT_FAILED: Final = 1
_NETWORKS: Final = "16-16-tanh,128-relu,800-relu"
_ACTIVATIONS: Final = ("tanh", "relu")  # that all participants have
_PACKAGES: Final = ("numpy", "torch", "scikit-learn", "jax", "jaxlib")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        report = _run(options)
    except (BenchmarkError, DatasetError) as error:
        print(f"training.py: {error}", file=sys.stderr)
        return _EXIT_FAILED
    print(report.markdown())
    for path in options.output:
        if path.suffix == ".json":
            write_whole(path, json.dumps(report.as_json(), indent=1) + "\n")
        else:
            write_section(path, _SECTION, report.markdown())
    return 0 if report.holds else _EXIT_FAILED


def _run(options: argparse.Namespace) -> Report:
    for path in options.output:
        check_output(path, _SECTION)
    dataset = load_dataset(options.data, data_dir=options.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        images = _save(dataset, data, options.images)
        return _measure(options, data, dataset, images)


def _save(dataset: Dataset, path: Path, images: int | None) -> int:
    """Write the data for all participants; return how many images there are to learn from."""
    train = slice(images)
    np.savez(
        path,
        x_train=dataset.train.images[train],
        y_train=dataset.train.labels[train],
        x_test=dataset.test.images,
        y_test=dataset.test.labels,
    )
    return len(dataset.train.labels[train])


def _measure(options: argparse.Namespace, data: Path, dataset: Dataset, images: int) -> Report:
    meter = NoiseMeter()
    runner = Runner(data, meter.probe, _say, options.baseline and options.baseline.resolve())
    measured = _time_libraries(options, runner)
    seed_measured = _time_seed_forms(options, runner)
    difference = None
    if options.check_costs:
        difference = runner.cost_difference(EXACT_FORM, FAST_FORM)
    values = InputSpec(dataset.input_shape).values_per_image
    shape = DataShape(images, values, len(dataset.class_labels))
    return Report(
        machine=describe_machine(_PACKAGES),
        noise=meter.noise(),
        conditions=_conditions(options, dataset.name, images),
        missing=_missing(options.libraries),
        libraries=library_rows(measured, shape),
        seed=seed_rows(seed_measured, shape),
        peaks=peaks(measured),
        cost_difference=difference,
        measured={**measured, **seed_measured},
    )


def _time_libraries(options: argparse.Namespace, runner: Runner) -> Measured:
    return runner.epochs(
        [name for name in options.libraries if LIBRARIES[name].is_installed()],
        options.networks,
        options.threads,
        epochs=options.epochs,
        repeats=options.repeats,
    )


def _time_seed_forms(options: argparse.Namespace, runner: Runner) -> Measured:
    if not options.iterations:
        return {}
    return runner.seed_forms(
        list(SEED_FORMS),
        options.threads,
        iterations=options.iterations,
        repeats=options.repeats,
    )


def _missing(libraries: Sequence[str]) -> dict[str, str]:
    """Return the title of each library that is not installed, and the package that it needs."""
    chosen = [LIBRARIES[name] for name in libraries]
    return {one.title: one.package or "" for one in chosen if not one.is_installed()}


def _conditions(options: argparse.Namespace, data_name: str, images: int) -> str:
    return (
        f"{images} training images of {data_name}; batches of 128, Adam with a rate of 0.001, "
        f"float32; the seed recipe takes all images at once. Median (lowest-highest) of "
        f"{options.repeats} round(s), each of them the median of {options.epochs} epoch(s), or "
        f"{options.iterations} iteration(s), after one to warm up."
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training.py", description="Time our trainer beside the libraries that are installed."
    )
    _add_data_flags(parser)
    _add_contest_flags(parser)
    parser.add_argument(
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="write the results: .json, or .md, into the marked section of a file that is there "
        "already; may be given several times",
    )
    return parser


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="auto", help="as for mlpserve-train; default: auto")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("MLPSERVE_DATA_DIR") or None,
        help="folder with the four MNIST files; default: $MLPSERVE_DATA_DIR, else the user's cache",
    )
    parser.add_argument(
        "--images", type=positive, metavar="N", help="learn from the first N only, for a trial"
    )


def _add_contest_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--repeats", type=positive, default=5, metavar="N", help="rounds; default: 5")
    add("--epochs", type=positive, default=3, metavar="N", help="timed in each; default: 3")
    add(
        "--networks",
        type=_shapes,
        default=_NETWORKS,
        metavar="N[-N...]-ACTIVATION[,...]",
        help=f"hidden layers and their activation, tanh or relu; default: {_NETWORKS}",
    )
    threads = "1,2" if granted_processors() > 1 else "1"
    add(
        "--threads",
        type=_thread_counts,
        default=threads,
        metavar="N[,N...]",
        help=f"default: {threads}",
    )
    add(
        "--libraries",
        type=_libraries,
        default=",".join(LIBRARIES),
        metavar="NAME[,NAME...]",
        help=f"some of {', '.join(LIBRARIES)}; ours is always among them; default: all",
    )
    add("--baseline", type=Path, metavar="PATH", help="a checkout with an earlier trainer of ours")
    seed_help = "timed of the seed recipe in each of its forms; 0 to leave it out; default: 5"
    add("--iterations", type=_natural, default=5, metavar="N", help=seed_help)
    costs_help = "also compare the costs of both forms of the seed recipe (half a minute)"
    add("--check-costs", action="store_true", help=costs_help)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return int(text)


def _thread_counts(text: str) -> list[int]:
    counts = [positive(count) for count in text.split(",")]
    if max(counts) > granted_processors():
        raise argparse.ArgumentTypeError(
            f"expected at most {granted_processors()}, the processors at hand, got {text!r}"
        )
    return counts


def _libraries(text: str) -> list[str]:
    return participants(text, LIBRARIES, ours=OURS)


def _shapes(text: str) -> list[Shape]:
    return [_shape(part) for part in text.split(",")]


def _shape(text: str) -> Shape:
    *widths, activation = text.split("-")
    if activation not in _ACTIVATIONS or not widths:
        raise argparse.ArgumentTypeError(
            f"expected widths and tanh or relu, as in 16-16-tanh, got {text!r}"
        )
    return Shape(tuple(map(positive, widths)), activation)


if __name__ == "__main__":
    sys.exit(main())
