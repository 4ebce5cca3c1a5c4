"""The command ``mlpserve-predict bench``: latency and throughput of a running server."""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from mlpserve.client import AsyncClient, ClientError, ModelInfo, NotFoundError, VersionInfo
from mlpserve.client.predict.connection import add_model, add_server, connection_arguments
from mlpserve.client.predict.load import QUANTILES, Caller, Result
from mlpserve.model.command_line import EXIT_INTERRUPTED

_EXIT_FAILED: Final = 1
_PERCENT: Final = 100
_SEED: Final = 0
_COLUMNS: Final = (
    *("images", "loop", "load", "calls", "failed", "calls/s", "images/s"),
    *QUANTILES,
    "client CPU",
)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_bench(options))
    except ClientError as error:
        print(f"mlpserve-predict bench: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


async def _bench(options: argparse.Namespace) -> None:
    async with _connected(options) as clients:
        served = await clients[0].model(options.model, version=options.version, label=options.label)
        if not served.versions:
            raise NotFoundError(f"model: no version of {served.name!r} is served")
        version = next(
            (each for each in served.versions if each.version == served.default_version),
            served.versions[0],
        )
        results = [result async for result in _results(clients, served, version, options)]
    if options.output == "json":
        print(json.dumps(_document(options, served, version, results), indent=2))
        return
    print(
        f"{served.name} version {version.version} at {options.target}, over "
        f"{options.connections} connection(s); latencies in milliseconds, in an open loop from "
        "when a call was due\n"
    )
    print("\n".join(_table([_COLUMNS, *(result.row() for result in results)])))


@asynccontextmanager
async def _connected(options: argparse.Namespace) -> AsyncIterator[list[AsyncClient]]:
    async with AsyncExitStack() as opened:
        yield [
            await opened.enter_async_context(AsyncClient(**connection_arguments(options)))
            for _ in range(options.connections)
        ]


async def _results(
    clients: Sequence[AsyncClient],
    served: ModelInfo,
    version: VersionInfo,
    options: argparse.Namespace,
) -> AsyncIterator[Result]:
    """Yield each measurement: for each size the closed loops, then the open ones."""
    rng = np.random.default_rng(_SEED)
    for count in options.images:
        images = rng.integers(0, 256, (count, *version.input_shape), np.uint8)
        caller = Caller(clients, images, model=served.name, version=version.version)
        fastest = 0.0
        for concurrency in options.concurrency:
            result = await caller.closed(concurrency, options.seconds)
            fastest = max(fastest, result.calls_per_s)
            yield result
        for rate_per_s in options.rate or [fastest * each / _PERCENT for each in options.load]:
            if rate_per_s:  # nothing is, where no call was answered
                yield await caller.open(rate_per_s, options.seconds)
        if caller.failure is not None:
            print(f"calls of {count} images failed, as this: {caller.failure}", file=sys.stderr)


def _document(
    options: argparse.Namespace,
    served: ModelInfo,
    version: VersionInfo,
    results: Sequence[Result],
) -> dict[str, Any]:
    return {
        "target": options.target,
        "model": served.name,
        "version": version.version,
        "input_shape": version.input_shape,
        "connections": options.connections,
        "seconds": options.seconds,
        "results": [_without_nan(asdict(result)) for result in results],
    }


def _without_nan(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result that JSON can hold: no latency, where no call was answered, is null."""
    latencies = result["latency_ms"].items()
    return result | {
        "latency_ms": {name: None if math.isnan(value) else value for name, value in latencies}
    }


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpserve-predict bench",
        description="Measure latency and throughput of a running server, with random images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--images", type=_numbers(int), default="1,64,1024", metavar="N,..", help="in each call")
    add(
        "--concurrency",
        type=_numbers(int),
        default="1,8,64",
        metavar="N,..",
        help="callers of each closed loop",
    )
    add(
        "--load",
        type=_numbers(float),
        default="50,80",
        metavar="PERCENT,..",
        help="rate of each open loop, of the highest throughput of the closed ones",
    )
    add(
        "--rate",
        type=_numbers(float),
        default=[],
        metavar="CALLS_PER_S,..",
        help="rate of each open loop, in place of --load",
    )
    add("--seconds", type=_number(float), default=2.0, metavar="S", help="of each measurement")
    add(
        "--connections",
        type=_number(int),
        default=1,
        metavar="N",
        help="each reaches one process of a server",
    )
    add("--output", choices=("table", "json"), default="table", help="form of the results")
    add_server(parser)
    add_model(parser)
    return parser


def _number(kind: type[float]) -> Any:  # noqa: ANN401 - what argparse calls
    """Return what reads a number above 0."""

    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
        return value

    read.__name__ = "number"  # as argparse names what cannot be read
    return read


def _numbers(kind: type[float]) -> Any:  # noqa: ANN401 - what argparse calls
    """Return what reads numbers above 0 with commas between them."""
    one = _number(kind)

    def read(text: str) -> list[float]:
        return [one(part) for part in text.split(",")]

    read.__name__ = "list of numbers"
    return read
