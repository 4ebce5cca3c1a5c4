"""Replicas of Ray Serve beside our own server, asked in turn by the same client.

    .venv-distributed/bin/python benchmarks/ray_serving.py

Both run on this machine, each with one process for the network; the other waits meanwhile. Prints
a table with the medians of the rounds: calls a second, and the median and the slowest hundredth of
the times that calls took. It takes about two minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
# Before Ray is imported, which reads them then; the cluster listens on the loopback only.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}

from harness.arguments import positive
from harness.tables import markdown_table
from mlpserve.client import Client
from quiet_ports import free_ports
from ray_application import BIN, ray_server
from servers.networks import publish_random

_NETWORK: Final = (784, 128, 10)
_IMAGES: Final = (1, 256)
_CALLERS: Final = (1, 16)
_START_TIMEOUT_S: Final = 60.0


class Load(NamedTuple):
    """One kind of load: so many images in each call, and so many callers."""

    images: int
    callers: int


class Measured(NamedTuple):
    """What a load measured."""

    calls_per_s: float
    p50_ms: float
    p99_ms: float


@contextmanager
def own_server(models: Path) -> Iterator[str]:
    """Run our server in one process; yield its address."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models)]
    command += ["--port", str(port), "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            with Client(f"127.0.0.1:{port}") as client:
                client.wait_until_ready(timeout_s=_START_TIMEOUT_S)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def measured(address: str, seconds: float) -> dict[Load, Measured]:
    """Have each load measured by a program of its own."""
    command = [str(BIN / "mlpserve-predict"), "bench", "--target", address, "--output", "json"]
    command += ["--images", ",".join(map(str, _IMAGES)), "--load", "1"]  # of an open loop, little
    command += ["--concurrency", ",".join(map(str, _CALLERS)), "--seconds", str(seconds)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(ended.stdout)["results"]
    return {
        Load(each["images"], each["concurrency"]): Measured(
            each["calls_per_s"], each["latency_ms"]["p50"], each["latency_ms"]["p99"]
        )
        for each in found
        if each["loop"] == "closed"
    }


def table(rounds: dict[str, list[dict[Load, Measured]]]) -> str:
    """Return the medians as a table."""
    rows = []
    for load in rounds["own"][0]:
        cells = [f"{load.images}", f"{load.callers}"]
        medians = {
            name: Measured(
                *map(statistics.median, zip(*(each[load] for each in found), strict=True))
            )
            for name, found in rounds.items()
        }
        own, ray = medians["own"], medians["Ray Serve"]
        cells += [f"{own.calls_per_s:,.0f}", f"{ray.calls_per_s:,.0f}"]
        cells += [f"{own.calls_per_s / ray.calls_per_s:.1f}"]
        cells += [f"{each.p50_ms:.1f} / {each.p99_ms:.1f}" for each in (own, ray)]
        rows.append(cells)
    headings = ["images a call", "callers", "own, calls/s", "Ray Serve, calls/s", "times"]
    return markdown_table([*headings, "own, p50 / p99 ms", "Ray Serve, p50 / p99 ms"], rows)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each load")
    options = parser.parse_args()
    rounds: dict[str, list[dict[Load, Measured]]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-")))
        models = folder / "models"
        publish_random(models, _NETWORK)
        own = stack.enter_context(own_server(models))
        ray = stack.enter_context(ray_server(folder, models, max_replicas=1))
        with Client(ray.address) as client:
            client.wait_until_ready(timeout_s=_START_TIMEOUT_S)
        for _ in range(options.rounds):
            for name, address in (("own", own), ("Ray Serve", ray.address)):
                rounds[name].append(measured(address, options.seconds))
    print(table(rounds))


if __name__ == "__main__":
    main()
