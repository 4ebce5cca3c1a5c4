"""Measurements of one worker on one processor, with the load on another: closed and open loops."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from harness.errors import BenchmarkError
from queueing.simulation import Seconds, poisson
from servers.participants import PARTICIPANTS

_PORT: Final = 50_470
_SERVER: Final = "mlpserve-1"
_WORKERS_PROCESSOR, _LOADS_PROCESSOR = "0", "1"
_SENDERS: Final = 8  # of an open loop: each is a connection of its own
_MAX_OPEN: Final = "100"
_TIMEOUT_S: Final = 120
_MICROSECOND_S: Final = 1e-6
_BEGIN_MS: Final = 50.0  # until all senders are there


@dataclass(frozen=True)
class Calls:
    """Calls of one kind.

    Attributes:
        images: Of each.
        concurrency: So many at a time; 0 for an open loop.
        arrivals_s: When each came.
        took_s: How long each took, in the same order.
    """

    images: int
    concurrency: int
    arrivals_s: Seconds
    took_s: Seconds

    @property
    def per_s(self) -> float:
        """Return how many came in a second."""
        return len(self.arrivals_s) / float(np.ptp(self.arrivals_s))


def command(models: Path) -> list[str]:
    """Return what starts the server."""
    return ["taskset", "-c", _WORKERS_PROCESSOR, *PARTICIPANTS[_SERVER].command(models, _PORT)]


def ask(images: int) -> bytes:
    """Ask once."""
    return PARTICIPANTS[_SERVER].protocol.ask(_PORT, _request(images))


def _request(images: int) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (images, 784), np.uint8)
    return PARTICIPANTS[_SERVER].protocol.request(pixels)


def closed_calls(images: int, concurrency: int, requests: int) -> Calls:
    """Measure a closed loop: each connection sends the next request when it has its answer."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        requests = max(requests, concurrency)
        limits = ("-n", str(requests), "-c", str(concurrency), "-m", "1")
        _wait_for([_load(Path(folder), log, images, (*limits, _url()))])
        arrivals_s, took_s = _read([log], requests)
    return Calls(images, concurrency, arrivals_s, took_s)


def open_calls(images: int, per_s: float, requests: int, rng: np.random.Generator) -> Calls:
    """Measure an open loop: requests come when they come, whether others are answered or not."""
    each = max(1, requests // _SENDERS)
    with tempfile.TemporaryDirectory() as name:
        folder, loads = Path(name), []
        logs = [folder / f"log-{number}" for number in range(_SENDERS)]
        for number, log in enumerate(logs):
            script = folder / f"script-{number}"
            times_ms = _BEGIN_MS + 1000 * poisson(per_s / _SENDERS, each, rng)
            script.write_text("".join(f"{time_ms:.3f}\t{_url()}\n" for time_ms in times_ms))
            limits = ("-n", str(each), "-c", "1", "-m", _MAX_OPEN)
            loads.append(_load(folder, log, images, (*limits, f"--timing-script-file={script}")))
        _wait_for(loads)
        arrivals_s, took_s = _read(logs, each * _SENDERS)
    return Calls(images, 0, arrivals_s, took_s)


def _url() -> str:
    return f"http://127.0.0.1:{_PORT}{PARTICIPANTS[_SERVER].protocol.path}"


def _load(folder: Path, log: Path, images: int, options: Sequence[str]) -> "subprocess.Popen[str]":
    protocol, body = PARTICIPANTS[_SERVER].protocol, folder / "body"
    if not body.exists():
        body.write_bytes(protocol.body(_request(images)))
    start = ["taskset", "-c", _LOADS_PROCESSOR, "h2load", "-t", "1", f"--log-file={log}"]
    return subprocess.Popen(
        [*start, "-d", str(body), *protocol.load_options, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for(loads: Sequence["subprocess.Popen[str]"]) -> None:
    for load in loads:
        said, _ = load.communicate(timeout=_TIMEOUT_S)
        if load.returncode or " 0 failed" not in said:
            raise BenchmarkError(f"h2load did not finish:\n{said[-1000:]}")


def _read(logs: Sequence[Path], expected: int) -> tuple[Seconds, Seconds]:
    """Return when each request was sent, and what it took: start in us, status, duration in us."""
    lines = np.concatenate([np.loadtxt(log, dtype=np.int64, ndmin=2) for log in logs])
    if len(lines) != expected or set(lines[:, 1]) != {200}:
        raise BenchmarkError(f"expected {expected} answers, got {len(lines)}, or errors")
    lines = lines[np.argsort(lines[:, 0], kind="stable")]
    return (lines[:, 0] - lines[0, 0]) * _MICROSECOND_S, lines[:, 2] * _MICROSECOND_S
