"""The command ``mlpserve-predict bench``: latency and throughput of a running server, as a table.

Two kinds of load. In a closed loop, so many callers each send the next call when the last one is
answered: a server that stalls is asked less, and its stall counts as one slow call. In an open
loop, calls are due at a fixed rate whatever becomes of those before, and each is timed from when it
was due, not from when it could be sent. So what waits behind a stall is counted as waiting.
Source: Tene, How NOT to Measure Latency, on coordinated omission.
"""

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.client import AsyncClient, ClientError, ModelInfo, NotFoundError, VersionInfo
from mlpserve.client.predict.connection import add_model, add_server, connection_arguments

_EXIT_FAILED: Final = 1
_EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_WARM_UP_S: Final = 0.3
_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_MS_PER_S: Final = 1000
_PERCENT: Final = 100
_SEED: Final = 0
_COLUMNS: Final = (
    *("images", "loop", "load", "calls", "failed", "calls/s", "images/s"),
    *_QUANTILES,
    "client CPU",
)
_Images: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Result:
    """What one load measured.

    Attributes:
        images: So many in each call.
        loop: ``closed`` or ``open``.
        concurrency: Of a closed loop, the callers; else 0.
        rate_per_s: Of an open loop, the calls that were due a second; else 0.
        calls: So many were answered.
        failed: So many were not; their times are not among the latencies.
        calls_per_s: Answered calls a second, until the last was.
        images_per_s: The same in images.
        latency_ms: By the quantile's name, in milliseconds.
        client_cpu: The share of one core that this program took. Near 1, it is the limit.
    """

    images: int
    loop: str
    concurrency: int
    rate_per_s: float
    calls: int
    failed: int
    calls_per_s: float
    images_per_s: float
    latency_ms: dict[str, float]
    client_cpu: float

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        load = f"{self.concurrency} at once" if self.concurrency else f"{self.rate_per_s:,.0f}/s"
        return (
            *(f"{self.images:,}", self.loop, load, f"{self.calls:,}", f"{self.failed:,}"),
            *(f"{self.calls_per_s:,.0f}", f"{self.images_per_s:,.0f}"),
            *(f"{self.latency_ms[name]:,.2f}" for name in _QUANTILES),
            f"{_PERCENT * self.client_cpu:.0f} %",
        )


class Caller:
    """Makes calls of so many images, in turn over several connections, and times them.

    Args:
        clients: One for each connection.
        images: Of each call.
        model: The model that is asked.
        version: The version that is asked.

    Attributes:
        failure: How the last call failed that did.
    """

    def __init__(
        self, clients: Sequence[AsyncClient], images: _Images, *, model: str, version: int
    ) -> None:
        self._clients = clients
        self._images = images
        self._asked: dict[str, Any] = {"model": model, "version": version}
        self._latencies_s: list[float] = []
        self._failed = 0
        self.failure: ClientError | None = None

    async def closed(self, concurrency: int, duration_s: float) -> Result:
        """Return what so many callers measure, each of which waits for its answer."""
        await self._callers(concurrency, _WARM_UP_S)
        self._latencies_s, self._failed = [], 0
        cpu_s, started_s = time.process_time(), time.perf_counter()
        await self._callers(concurrency, duration_s)
        return self._result(started_s, cpu_s, concurrency=concurrency)

    async def open(self, rate_per_s: float, duration_s: float) -> Result:
        """Return what calls measure that are due at a rate."""
        self._latencies_s, self._failed = [], 0
        cpu_s, started_s = time.process_time(), time.perf_counter()
        calls = []
        for number in range(max(1, round(rate_per_s * duration_s))):
            due_s = started_s + number / rate_per_s
            # Also where it is late: or answers would find no time to be read.
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            calls.append(asyncio.create_task(self._call(number, due_s)))
        await asyncio.gather(*calls)
        return self._result(started_s, cpu_s, rate_per_s=rate_per_s)

    async def _callers(self, concurrency: int, duration_s: float) -> None:
        ends_s = time.perf_counter() + duration_s

        async def call_until_then(number: int) -> None:
            while (now_s := time.perf_counter()) < ends_s:
                await self._call(number, now_s)

        await asyncio.gather(*map(call_until_then, range(concurrency)))

    async def _call(self, number: int, due_s: float) -> None:
        client = self._clients[number % len(self._clients)]
        try:
            await client.predict(self._images, **self._asked)
        except ClientError as error:
            self._failed += 1
            self.failure = error
        else:
            self._latencies_s.append(time.perf_counter() - due_s)

    def _result(
        self, started_s: float, cpu_s: float, *, concurrency: int = 0, rate_per_s: float = 0
    ) -> Result:
        duration_s = time.perf_counter() - started_s
        calls = len(self._latencies_s)
        found = np.quantile(
            self._latencies_s or [math.nan], [*_QUANTILES.values()], method="higher"
        )
        return Result(
            images=len(self._images),
            loop="closed" if concurrency else "open",
            concurrency=concurrency,
            rate_per_s=rate_per_s,
            calls=calls,
            failed=self._failed,
            calls_per_s=calls / duration_s,
            images_per_s=calls * len(self._images) / duration_s,
            latency_ms=dict(zip(_QUANTILES, (found * _MS_PER_S).tolist(), strict=True)),
            client_cpu=(time.process_time() - cpu_s) / duration_s,
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
        return _EXIT_INTERRUPTED
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
