"""Measures this server beside an earlier one, and what each adds to transport and network.

    git worktree add ../earlier COMMIT
    .venv/bin/python benchmarks/serving_before_after.py --baseline ../earlier

All servers take turns in every round, and ratios are taken within a round, so that a slow minute of
the machine is everybody's. Cold starts and memory come first. The own share is the processor time
of a request, less that of the echo in the same round, less its part of a forward pass, on images
that no cache holds.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from harness.arguments import connections_and_calls, positive
from harness.errors import BenchmarkError
from harness.figures import Spread, ratios
from harness.noise import NoiseMeter
from harness.rounds import interleave, sources_of
from harness.tables import markdown_table
from mlpserve.model.compiled import DEFAULT_BLOCK_ROWS
from mlpserve.model.weights import Model
from servers.contest import Cell, Measurement, Server, Start, forward, started
from servers.load import check_installed
from servers.networks import publish_random
from servers.participants import ECHO, OURS

_EXIT_FAILED: Final = 1
_ONE_WORKER: Final = "mlpserve-1"
_CELLS: Final = "1:32,1:64,1:8x8,1:1x64,64:32,64:64,64:8x8,64:1x64,1024:32"
_US: Final = 1e6
_MB: Final = 1e-6


class _Row(NamedTuple):
    """A server that is measured; of another checkout where that is not None."""

    title: str
    name: str
    checkout: Path | None = None


_ECHO: Final = _Row("echo on the fast lane", ECHO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        check_installed()
        _run(options)
    except BenchmarkError as error:
        print(f"serving_before_after.py: {error}", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def _run(options: argparse.Namespace) -> None:
    rows = [_Row("1 worker", _ONE_WORKER), _Row("as it starts", OURS), _ECHO]
    if options.baseline is not None:
        checkout = options.baseline.resolve()
        before = [row._replace(title=f"before: {row.title}", checkout=checkout) for row in rows[:2]]
        rows = [*before, *rows]
    meter = NoiseMeter()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        models = Path(name) / "models"
        model = publish_random(models, options.network)
        start = partial(_started, models=models, model=model, folder=Path(name))
        starts = interleave(rows, options.repeats, lambda row, _: _start(start(row)))
        print(_table_of_starts(starts), flush=True)
        servers = {row: stack.enter_context(start(row)) for row in rows}
        for batch, (connections, calls) in options.cells:
            cell = Cell(options.network, batch, connections, calls)

            def measure(row: _Row, _: int, cell: Cell = cell) -> Measurement:
                meter.probe()
                return servers[row].measure(cell, options.seconds)

            # Small requests go through the network together.
            joined = max(batch, min(DEFAULT_BLOCK_ROWS, batch * connections * calls))
            forward_s = batch * min(forward(models, joined, 1).cpu_s_per_image for _ in range(3))
            print(_table(cell, interleave(rows, options.repeats, measure), forward_s), flush=True)
    print(meter.noise().sentences())


@contextmanager
def _started(row: _Row, *, models: Path, model: Model, folder: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        with sources_of(row.checkout):
            server = stack.enter_context(started(row.name, models, logs, model))
        yield server


def _start(server: AbstractContextManager[Server]) -> Start:
    with server as running:
        return running.start


def _table_of_starts(found: Mapping[_Row, Sequence[Start]]) -> str:
    heads = ("server", "s to the first answer", "MB resident")
    rows = [
        (
            row.title,
            Spread.of([each.start_s for each in starts]).text(2),
            Spread.of([each.memory_bytes for each in starts]).text(0, scale=_MB),
        )
        for row, starts in found.items()
    ]
    return f"**Started anew.**\n\n{markdown_table(heads, rows)}"


def _table(cell: Cell, found: Mapping[_Row, Sequence[Measurement]], forward_s: float) -> str:
    first, *_ = found
    cpu = {row: [one.cpu_s for one in rounds] for row, rounds in found.items()}
    rates = {row: [one.images_per_s / cell.batch for one in found[row]] for row in found}
    rows = []
    for row in found:
        own = [of - echo - forward_s for of, echo in zip(cpu[row], cpu[_ECHO], strict=True)]
        rows.append(
            (
                row.title,
                Spread.of(rates[row]).text(0),
                f"{Spread.of(ratios(rates[row], rates[first])).median:.2f}",
                Spread.of(cpu[row]).text(0, scale=_US),
                f"{Spread.of(ratios(cpu[row], cpu[first])).median:.2f}",
                "" if row is _ECHO else Spread.of(own).text(0, scale=_US),
                Spread.of([one.p99_s for one in found[row]]).text(2, scale=1000),
            )
        )
    heads = ("server", "requests/s", "x", "CPU us a request", "x", "own share us", "p99 ms")
    title = f"**{cell.batch} image(s) a request, {cell.at_a_time} at a time.** The forward pass"
    return f"\n{title} takes {_US * forward_s:.0f} us.\n\n{markdown_table(heads, rows)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serving_before_after.py", description="Measure this server beside an earlier one."
    )
    add = parser.add_argument
    add("--repeats", type=positive, default=7, metavar="N", help="rounds; default: 7")
    add("--seconds", type=float, default=1.0, metavar="S", help="each measurement; default: 1")
    add("--baseline", type=Path, metavar="PATH", help="a checkout with an earlier server")
    add(
        "--network",
        type=lambda text: tuple(map(positive, text.split("-"))),
        default="784-16-16-10",
        metavar="N-N[-N...]",
        help="layer sizes; default: 784-16-16-10",
    )
    add(
        "--cells",
        type=lambda text: [_cell(part) for part in text.split(",")],
        default=_CELLS,
        metavar="N:N[xN][,...]",
        help=f"images a request, connections, and requests that each carries; default: {_CELLS}",
    )
    return parser


def _cell(text: str) -> tuple[int, tuple[int, int]]:
    batch, _, at_a_time = text.partition(":")
    return positive(batch), connections_and_calls(at_a_time)


if __name__ == "__main__":
    sys.exit(main())
