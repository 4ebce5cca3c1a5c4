"""Load from h2load: a process of its own, in C, that sends one prepared request again and again."""

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import BenchmarkError

_PROGRAM: Final = "h2load"
_TIMEOUT_S: Final = 300
_FINISHED: Final = re.compile(r"finished in ([0-9.]+)(us|ms|s),")
_REQUESTS: Final = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed")
_DATA: Final = re.compile(r"\((\d+)\) data$", re.MULTILINE)
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_MICROSECOND_S: Final = 1e-6


@dataclass(frozen=True)
class Load:
    """What one run of the load met.

    Attributes:
        requests: So many were sent and answered.
        duration_s: From the first to the last.
        p50_s: Half of the answers took at most so long.
        p99_s: 99 of 100 took at most so long.
    """

    requests: int
    duration_s: float
    p50_s: float
    p99_s: float


def check_installed() -> None:
    """Find out whether there is an h2load.

    Raises:
        BenchmarkError: There is none.
    """
    if shutil.which(_PROGRAM) is None:
        raise BenchmarkError(
            "the load comes from h2load, which is not here: apt-get install nghttp2-client"
        )


def run_load(
    url: str,
    body: bytes,
    options: Sequence[str],
    *,
    concurrency: int,
    requests: int,
    expected_bytes: int,
    calls: int = 1,
) -> Load:
    """Send requests in a closed loop: the next is sent when one of a connection is answered.

    Args:
        url: Where to.
        body: The body of each.
        options: Further options of h2load.
        concurrency: So many connections.
        requests: So many in all; at least one a connection.
        expected_bytes: How long the body of each answer must be.
        calls: So many requests at a time each of them carries.

    Raises:
        BenchmarkError: A request failed, or an answer had another size.
    """
    with tempfile.TemporaryDirectory() as folder:
        sent, log = Path(folder) / "body", Path(folder) / "log"
        sent.write_bytes(body)
        limits = ["-n", str(requests), "-c", str(concurrency), "-m", str(calls), "-t", "1"]
        command = [_PROGRAM, *limits, "-d", str(sent), f"--log-file={log}", *options, url]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        return _load(done.stdout, log, requests, expected_bytes)


def _load(output: str, log: Path, requests: int, expected_bytes: int) -> Load:
    finished, counts, data = (found.search(output) for found in (_FINISHED, _REQUESTS, _DATA))
    if finished is None or counts is None or data is None:
        raise BenchmarkError(f"h2load did not finish:\n{output[-1000:]}")
    if int(counts[2]) != requests:
        raise BenchmarkError(f"{counts[2]} of {requests} requests succeeded:\n{output[-1000:]}")
    # An error of gRPC has status 200 as well, but no data.
    if int(data[1]) != requests * expected_bytes:
        raise BenchmarkError(
            f"expected {requests} answers of {expected_bytes} bytes, got {data[1]} bytes in all"
        )
    # Start in microseconds, status, duration in microseconds; a line an answer.
    latencies = [int(line.split()[2]) * _MICROSECOND_S for line in log.read_text().splitlines()]
    percentiles = statistics.quantiles(latencies, n=100, method="inclusive")
    duration_s = float(finished[1]) * _SECONDS[finished[2]]
    return Load(requests, duration_s, percentiles[49], percentiles[98])
