"""Measures the client library beside the raw gRPC call, and beside h2load, in one run.

    .venv/bin/python benchmarks/client.py --repeats 5
    git worktree add ../earlier COMMIT
    .venv/bin/python benchmarks/client.py --repeats 5 --baseline ../earlier

Server and client share the processors. Each round is a new process for each library, which makes
all kinds of calls for a while each, and then h2load with the same requests. Figures are medians of
the rounds. The share is that of the requests a second which h2load gets over one connection, with
the better of one and four requests at a time.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import patch

import numpy as np

from harness.arguments import positive
from harness.errors import BenchmarkError
from harness.rounds import interleave, run_process
from harness.tables import markdown_table
from servers.load import check_installed, run_load
from servers.networks import publish_random
from servers.participants import OURS, PARTICIPANTS
from servers.ports import free_ports
from servers.processes import running

_EXIT_FAILED: Final = 1
_NETWORK: Final = (784, 16, 16, 10)
_SIZES: Final = (1, 64, 1024)
_STREAMS: Final = (1, 4)  # of h2load's connection
_WAYS: Final = 30  # a worker measures at most so many
_START_S: Final = 60.0
_WORKER: Final = Path(__file__).parent / "client_worker.py"

Figures = dict[str, dict[str, float]]


class Library(NamedTuple):
    """A client library that is measured.

    Attributes:
        title: What the table calls it.
        checkout: Where its sources are; None for those that are installed.
    """

    title: str
    checkout: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        check_installed()
        print(_run(options))
    except BenchmarkError as error:
        print(f"client.py: {error}", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def _run(options: argparse.Namespace) -> str:
    libraries = [Library("", None)]
    if options.baseline is not None:
        libraries.append(Library("earlier: ", options.baseline.resolve()))
    ours, port = PARTICIPANTS[OURS], free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        publish_random(models, _NETWORK)
        request = ours.protocol.request(_images(1))

        def measure(library: Library, number: int) -> Figures:
            print(f"round {number + 1}: {library.title or 'this library'}", file=sys.stderr)
            found = _worker(library, port, options.seconds)
            return found if library.checkout else found | _loads(port, options.seconds)

        with running(
            ours.command(models, port),
            Path(folder) / "log",
            lambda: ours.protocol.ask(port, request),
        ):
            rounds = interleave(libraries, options.repeats, measure)
    return _table({f"{library.title}{way}": figures for library, way, figures in _medians(rounds)})


def _worker(library: Library, port: int, seconds: float) -> Figures:
    path = os.environ.get("PYTHONPATH", "")
    if library.checkout is not None:
        path = os.pathsep.join(str(library.checkout / root) for root in ("client", "proto"))
    command = [sys.executable, str(_WORKER), f"127.0.0.1:{port}", str(seconds)]
    with patch.dict(os.environ, PYTHONPATH=path):
        return run_process(command, threads=1, timeout_s=_START_S + 10 * _WAYS * seconds)


def _loads(port: int, seconds: float) -> Figures:
    """Return what h2load gets: the better of few and many requests at a time."""
    found: Figures = {}
    protocol = PARTICIPANTS[OURS].protocol
    for size in _SIZES:
        request = protocol.request(_images(size))
        for streams in _STREAMS:
            load = run_load(
                f"http://127.0.0.1:{port}{protocol.path}",
                protocol.body(request),
                [*protocol.load_options, "-m", str(streams)],
                concurrency=1,
                requests=max(int(seconds * 400), 20),
                expected_bytes=protocol.body_bytes(protocol.ask(port, request)),
            )
            way = f"h2load, {streams} at a time, {size}"
            found[way] = {"calls_per_s": load.requests / load.duration_s, "p50_s": load.p50_s}
    return found


def _medians(
    rounds: dict[Library, list[Figures]],
) -> list[tuple[Library, str, dict[str, float]]]:
    return [
        (
            library,
            way,
            {key: statistics.median(one[way][key] for one in found) for key in figures},
        )
        for library, found in rounds.items()
        for way, figures in found[0].items()
    ]


def _table(found: Figures) -> str:
    def best(size: str) -> float:
        loads = (each for way, each in found.items() if _is_load(way, size))
        return max(each["calls_per_s"] for each in loads)

    rows = []
    for way, figures in sorted(found.items(), key=lambda item: int(item[0].rpartition(", ")[2])):
        name, _, size = way.rpartition(", ")
        rows.append(
            (
                size,
                name,
                f"{figures['calls_per_s']:,.0f}",
                f"{figures['calls_per_s'] / best(size):.2f}",
                f"{1000 * figures['p50_s']:.3f}",
                f"{1000 * figures['cpu_s']:.3f}" if "cpu_s" in figures else "",
                f"{figures['faults']:.0f}" if "faults" in figures else "",
            )
        )
    heads = ("images", "way", "requests/s", "of h2load", "ms each", "client CPU ms", "page faults")
    return markdown_table(heads, rows)


def _is_load(way: str, size: str) -> bool:
    return way.startswith("h2load") and way.endswith(f", {size}")


def _images(count: int) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    return np.random.default_rng(1).integers(0, 256, (count, _NETWORK[0]), np.uint8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="client.py", description="Measure the client library beside the raw call and h2load."
    )
    add = parser.add_argument
    add("--repeats", type=positive, default=5, metavar="N", help="rounds; default: 5")
    add("--seconds", type=float, default=1.0, metavar="S", help="each measurement; default: 1")
    add("--baseline", type=Path, metavar="PATH", help="a checkout with an earlier client")
    return parser


if __name__ == "__main__":
    sys.exit(main())
