"""What a process uses: processor time, memory, descriptors, threads."""

import os
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from mlpserve.server.telemetry.logs import lines_dropped
from mlpserve.server.telemetry.metrics import catalog
from mlpserve.server.telemetry.metrics.snapshots import MetricsSnapshot

_OWN: Final = Path("/proc/self")


def process_snapshot(process: str) -> MetricsSnapshot:
    """Return what this process uses; outside Linux, its processor time only.

    Args:
        process: What it is called in the label.
    """
    found = {catalog.CPU_SECONDS.name: time.process_time()}
    with suppress(OSError):  # there is no /proc, or no descriptor is left
        pages = int((_OWN / "statm").read_text().split()[1])
        found[catalog.RESIDENT_BYTES.name] = pages * os.sysconf("SC_PAGE_SIZE")
        found[catalog.OPEN_DESCRIPTORS.name] = _entries(_OWN / "fd")
        found[catalog.THREADS.name] = _entries(_OWN / "task")
    used: MetricsSnapshot = {name: [([process], value)] for name, value in found.items()}
    return {
        **used,
        catalog.LOG_LINES_DROPPED.name: [([], lines_dropped())],
        catalog.INFO.name: [([version("mlpserve")], 1)],
    }


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())
