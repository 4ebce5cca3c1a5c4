"""Measures our server beside an echo, the forward pass alone, and the peers that are installed.

    make benchmark-serving ARGUMENTS='--repeats 1 --seconds 0.5'

See benchmarks/README.md.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from harness.arguments import connections_and_calls, participants, positive
from harness.errors import BenchmarkError
from harness.machine import describe_machine
from harness.noise import NoiseMeter
from harness.tables import check_output, write_section, write_whole
from servers.contest import Contest
from servers.load import check_installed
from servers.participants import OURS, PARTICIPANTS
from servers.report import Report

_T = TypeVar("_T")

_EXIT_FAILED: Final = 1
_SECTION: Final = "serving results"
_PACKAGES: Final = ("numpy", "grpcio", "protobuf")
_NETWORKS: Final = "784-16-16-10,784-800-10"
_BATCHES: Final = "1,64,1024"
_CONCURRENCIES: Final = "1,8,32,8x8,1x64"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        report = _run(options)
    except BenchmarkError as error:
        print(f"serving.py: {error}", file=sys.stderr)
        return _EXIT_FAILED
    print(report.markdown())
    for path in options.output:
        if path.suffix == ".json":
            write_whole(path, json.dumps(report.as_json(), indent=1) + "\n")
        else:
            write_section(path, _SECTION, report.markdown())
    return 0


def _run(options: argparse.Namespace) -> Report:
    check_installed()
    for path in options.output:
        check_output(path, _SECTION)
    meter = NoiseMeter()
    contest = Contest(
        names=[name for name in options.servers if PARTICIPANTS[name].is_installed()],
        networks=options.networks,
        batches=options.batches,
        concurrencies=options.concurrencies,
        repeats=options.repeats,
        seconds=options.seconds,
        before_each=meter.probe,
        say=_say,
    )
    found = contest.run()
    return Report(
        machine=describe_machine(_PACKAGES),
        noise=meter.noise(),
        conditions=(
            "Server and load share the processors. uint8 images; a closed loop, one connection "
            "for each request at a time, or so many requests on each of so many (8 x 8). "
            f"Median (lowest-highest) of {options.repeats} round(s) of about "
            f"{options.seconds:g} s each."
        ),
        missing={
            PARTICIPANTS[name].title: PARTICIPANTS[name].peer or ""
            for name in options.servers
            if not PARTICIPANTS[name].is_installed()
        },
        found=found,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serving.py", description="Measure our server beside those that are installed."
    )
    add = parser.add_argument
    add("--repeats", type=positive, default=5, metavar="N", help="rounds; default: 5")
    add("--seconds", type=float, default=2.0, metavar="S", help="each measurement; default: 2")
    add(
        "--networks",
        type=_list_of(_sizes),
        default=_NETWORKS,
        metavar="N-N[-N...][,...]",
        help=f"layer sizes; default: {_NETWORKS}",
    )
    numbers = _list_of(positive)
    add("--batches", type=numbers, default=_BATCHES, metavar="N[,N...]", help="images a request")
    add(
        "--concurrencies",
        type=_list_of(connections_and_calls),
        default=_CONCURRENCIES,
        metavar="N[xN][,...]",
        help="connections, and how many requests each carries at a time where it can: 8x8",
    )
    add(
        "--servers",
        type=_servers,
        default=",".join(PARTICIPANTS),
        metavar="NAME[,NAME...]",
        help=f"some of {', '.join(PARTICIPANTS)}; {OURS} is always among them; default: all",
    )
    add(
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="write the results: .json, or .md, into the marked section of a file that is there "
        "already; may be given several times",
    )
    return parser


def _list_of(kind: Callable[[str], _T]) -> Callable[[str], list[_T]]:
    def read(text: str) -> list[_T]:
        return [kind(part) for part in text.split(",")]

    return read


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(map(positive, text.split("-")))
    if len(sizes) < 2:  # noqa: PLR2004 - an input and an output
        raise argparse.ArgumentTypeError(f"expected at least two sizes, as in 784-10, got {text!r}")
    return sizes


def _servers(text: str) -> list[str]:
    return participants(text, PARTICIPANTS, ours=OURS)


if __name__ == "__main__":
    sys.exit(main())
