"""Explanations beside what they are made of, and predictions beside explanations.

    python benchmarks/explaining.py

First: integrated gradients of 20 steps, as times those of 20 forward and backward passes, computed
in turn in one thread, in processor time. Then: how long a prediction of one image takes at a server
of one process that others keep busy meanwhile, over a connection of their own: with nothing, with
explanations, and with predictions of as many rows.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from harness.arguments import positive
from harness.tables import markdown_table
from mlpserve.client import Client
from mlpserve.model.attribution import DEFAULT_STEPS, gradients, integrated_gradients
from servers.networks import publish_random, random_model
from servers.participants import PARTICIPANTS
from servers.ports import free_ports
from servers.processes import running

_NETWORKS: Final = ((784, 16, 16, 10), (784, 128, 10), (784, 800, 10), (784, 512, 256, 10))
_SERVED: Final = (784, 128, 10)
_IMAGES: Final = np.random.default_rng(3).integers(0, 256, (1024, 784), np.uint8)
_EXPLAINED: Final = len(_IMAGES) // DEFAULT_STEPS  # as many rows as images that are predicted

_LOADS: Final[Mapping[str, Callable[[Client], object]]] = {
    "nothing": lambda _: time.sleep(0.01),
    f"explanations of {_EXPLAINED} images": lambda client: client.explain(_IMAGES[:_EXPLAINED]),
    f"predictions of {len(_IMAGES)} images": lambda client: client.predict(_IMAGES),
}


def main() -> int:
    """Print both tables; return the exit code."""
    options = _parser().parse_args()
    with threadpool_limits(1):
        rows = [[_name(sizes), *_ratio(sizes, options.repeats)] for sizes in _NETWORKS]
    headings = ["network", f"{DEFAULT_STEPS} passes, ms", "integrated gradients, ms", "ratio"]
    print(markdown_table(headings, rows), "\n")
    with _served() as target:
        measured: dict[str, list[float]] = {name: [] for name in _LOADS}
        for _ in range(options.repeats):
            for name, load in _LOADS.items():
                measured[name] += _waits_ms(target, load, options.seconds)
    rows = [[name, *_quantiles(waits)] for name, waits in measured.items()]
    print(markdown_table(["others ask for", "p50, ms", "p99, ms"], rows))
    return 0


def _ratio(sizes: tuple[int, ...], repeats: int) -> Iterator[str]:
    """Yield the medians of both times, and that of their ratios."""
    network = random_model(sizes).network
    inputs = (_IMAGES[:256] / np.float32(255)).astype(np.float32)
    classes = np.zeros(len(inputs), np.intp)
    passes_s, explained_s = [], []
    for _ in range(repeats + 1):
        begun_s = time.thread_time()
        for _ in range(DEFAULT_STEPS):
            gradients(network, inputs, classes)
        between_s = time.thread_time()
        integrated_gradients(network, inputs, classes)
        passes_s.append(between_s - begun_s)
        explained_s.append(time.thread_time() - between_s)
    pairs = list(zip(passes_s[1:], explained_s[1:], strict=True))  # after one to warm up
    for times_s in (passes_s[1:], explained_s[1:]):
        yield f"{1000 * statistics.median(times_s):.1f}"
    yield f"{statistics.median(explained / passes for passes, explained in pairs):.2f}"


@contextmanager
def _served() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        publish_random(folder / "models", _SERVED)
        port = free_ports(1)
        target = f"127.0.0.1:{port}"

        def ask() -> None:
            with Client(target, timeout_s=1) as client:
                client.predict(_IMAGES[:1])

        with running(
            PARTICIPANTS["mlpserve-1"].command(folder / "models", port), folder / "log", ask
        ):
            yield target


def _waits_ms(target: str, load: Callable[[Client], object], duration_s: float) -> list[float]:
    """Return how long predictions of one image took, beside a load."""
    is_over, waits_ms = Event(), []

    def keep_busy() -> None:
        with Client(target) as other:
            while not is_over.is_set():
                load(other)

    thread = Thread(target=keep_busy)
    thread.start()
    try:
        with Client(target) as client:
            end_s = time.perf_counter() + duration_s
            while (begun_s := time.perf_counter()) < end_s:
                client.predict(_IMAGES[:1])
                waits_ms.append(1000 * (time.perf_counter() - begun_s))
                time.sleep(0.002)
    finally:
        is_over.set()
        thread.join()
    return waits_ms


def _quantiles(waits_ms: list[float]) -> tuple[str, str]:
    percentiles = statistics.quantiles(waits_ms, n=100)
    return f"{percentiles[49]:.2f}", f"{percentiles[98]:.2f}"


def _name(sizes: tuple[int, ...]) -> str:
    return "-".join(map(str, sizes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=positive, default=7, help="rounds of each measurement")
    parser.add_argument("--seconds", type=positive, default=2, help="of each load in a round")
    return parser


if __name__ == "__main__":
    sys.exit(main())
