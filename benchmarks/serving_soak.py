"""Watches what a server takes while it serves for a while: memory, open files, threads.

.venv/bin/python benchmarks/serving_soak.py --minutes 10
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from harness.errors import BenchmarkError
from harness.tables import markdown_table
from servers.load import check_installed, run_load
from servers.networks import publish_random
from servers.participants import PARTICIPANTS
from servers.processes import Running, running

_EXIT_FAILED: Final = 1
_NETWORK: Final = (784, 800, 10)
_SERVER: Final = "mlpserve"
_PORT: Final = 50_390
_SEED: Final = 1
_MEGABYTE: Final = 1e6

Row: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Mix:
    """One kind of load: images a request, requests at a time, requests before the next kind."""

    images: int
    concurrency: int
    requests: int


_MIXES: Final = (Mix(1, 32, 1500), Mix(64, 8, 80), Mix(1024, 4, 8), Mix(8192, 2, 2))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        check_installed()
        rows = _soak(options.minutes * 60, options.pause)
    except BenchmarkError as error:
        print(f"serving_soak.py: {error}", file=sys.stderr)
        return _EXIT_FAILED
    head = ("minutes", "requests so far", "MB resident", "open files", "threads")
    print(markdown_table(head, rows))
    return 0


def _soak(duration_s: float, pause_s: float) -> list[Row]:
    ours = PARTICIPANTS[_SERVER]
    with tempfile.TemporaryDirectory() as folder:
        models, log = Path(folder) / "models", Path(folder) / "log"
        publish_random(models, _NETWORK)
        request = ours.protocol.request(_images(1))
        command = ours.command(models, _PORT)
        with running(command, log, lambda: ours.protocol.ask(_PORT, request)) as server:
            return _watch(server, duration_s, pause_s)


def _watch(server: Running, duration_s: float, pause_s: float) -> list[Row]:
    """Return a row for the start, and one for each minute that has gone by."""
    prepared = [_prepared(mix) for mix in _MIXES]
    started_s, requests = time.monotonic(), 0
    rows = [_row(0.0, requests, server)]
    while (elapsed_s := time.monotonic() - started_s) < duration_s:
        for mix, (body, expected_bytes) in zip(_MIXES, prepared, strict=True):
            _load(mix, body, expected_bytes)
            requests += mix.requests
            time.sleep(pause_s)
        if elapsed_s >= 60 * len(rows):
            rows.append(_row(elapsed_s, requests, server))
    return [*rows, _row(time.monotonic() - started_s, requests, server)]


def _prepared(mix: Mix) -> tuple[bytes, int]:
    protocol = PARTICIPANTS[_SERVER].protocol
    request = protocol.request(_images(mix.images))
    return protocol.body(request), protocol.body_bytes(protocol.ask(_PORT, request))


def _load(mix: Mix, body: bytes, expected_bytes: int) -> None:
    protocol = PARTICIPANTS[_SERVER].protocol
    run_load(
        f"http://127.0.0.1:{_PORT}{protocol.path}",
        body,
        protocol.load_options,
        concurrency=mix.concurrency,
        requests=mix.requests,
        expected_bytes=expected_bytes,
    )


def _row(elapsed_s: float, requests: int, server: Running) -> Row:
    row = (
        f"{elapsed_s / 60:.1f}",
        str(requests),
        f"{server.resident_bytes() / _MEGABYTE:.1f}",
        str(server.open_files()),
        str(server.threads()),
    )
    print(*row, file=sys.stderr, flush=True)
    return row


def _images(count: int) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    return np.random.default_rng(_SEED).integers(0, 256, (count, _NETWORK[0]), np.uint8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serving_soak.py", description="Watch what a server takes under a mixed load."
    )
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="default: 10")
    parser.add_argument(
        "--pause", type=float, default=0.0, metavar="S", help="seconds between loads; default: 0"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
