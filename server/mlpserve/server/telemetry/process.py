"""Telemetry of one process: its counters, its log of requests, its tracer, and what it uses."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from mlpserve.server.errors import StartError
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.counters import Counters, SharedCounters
from mlpserve.server.telemetry.logs import lines_dropped
from mlpserve.server.telemetry.recorder import Recorder, Tracer
from mlpserve.server.telemetry.request_log import RequestLog
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, merged

_OWN: Final = Path("/proc/self")


class Telemetry:
    """Telemetry of a process that serves.

    Args:
        config: Says whether to trace.

    Raises:
        StartError: It is to trace, but the packages for that are missing.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._log = RequestLog()
        self._counters: list[Counters] = []
        self._depths: list[Callable[[], tuple[int, int]]] = []
        self._tracer = _tracer() if config.tracing else None

    def recorder(self) -> Recorder:
        """Return a recorder for an adapter that has one thread."""
        return Recorder(self.counters(), self._log, tracer=self._tracer)

    def shared_recorder(self) -> Recorder:
        """Return a recorder for adapters that have many threads."""
        return Recorder(self._add(SharedCounters()), self._log, tracer=self._tracer)

    def counters(self) -> Counters:
        """Return a new set of counters, for one thread at a time."""
        return self._add(Counters())

    def watch_queue(self, depth: Callable[[], tuple[int, int]]) -> None:
        """Have a queue counted.

        Args:
            depth: Returns how many requests wait in it, and how many rows; called from any thread.
        """
        self._depths.append(depth)

    def snapshot(self, process: str) -> MetricsSnapshot:
        """Return what was counted and timed so far; safe to call from any thread.

        Args:
            process: What this process is called in labels.
        """
        depths = [depth() for depth in self._depths]
        queues: MetricsSnapshot = {
            metrics.QUEUE_REQUESTS.name: [([], sum(requests for requests, _ in depths))],
            metrics.QUEUE_ROWS.name: [([], sum(rows for _, rows in depths))],
            metrics.WORKERS.name: [([], 1)],
        }
        counted = [counters.snapshot() for counters in self._counters]
        return merged([*counted, queues, process_snapshot(process)])

    def close(self) -> None:
        """Pass on the spans that were not passed on yet."""
        if self._tracer is not None:
            self._tracer.close()

    def _add(self, counters: Counters) -> Counters:
        self._counters.append(counters)
        return counters


def process_snapshot(process: str) -> MetricsSnapshot:
    """Return what this process uses; outside Linux, its processor time only.

    Args:
        process: What it is called in the label.
    """
    found = {metrics.CPU_SECONDS.name: time.process_time()}
    with suppress(OSError):  # there is no /proc, or no descriptor is left
        pages = int((_OWN / "statm").read_text().split()[1])
        found[metrics.RESIDENT_BYTES.name] = pages * os.sysconf("SC_PAGE_SIZE")
        found[metrics.OPEN_DESCRIPTORS.name] = _entries(_OWN / "fd")
        found[metrics.THREADS.name] = _entries(_OWN / "task")
    used: MetricsSnapshot = {name: [([process], value)] for name, value in found.items()}
    return {
        **used,
        metrics.LOG_LINES_DROPPED.name: [([], lines_dropped())],
        metrics.INFO.name: [([version("mlpserve")], 1)],
    }


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def _tracer() -> Tracer:
    try:
        # Not before it is asked for: it takes a tenth of a second, and packages of its own.
        from mlpserve.server.telemetry.tracing import SpanTracer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartError(
            f"tracing: needs {error.name}: pip install 'mlpserve[server,tracing]'"
        ) from error
    return SpanTracer()
