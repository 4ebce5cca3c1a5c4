"""Processes as Linux tells of them: which have started which, are stopped, have connections."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import monotonic

_TIMEOUT_S = 60.0
_PERIOD_S = 0.005
_OPEN = "01"  # the state of a connection


def children(process: int) -> list[int]:
    """Return the ids of the processes that a process has started and that it has not outlived."""
    found: list[str] = []
    # Each is listed with the thread that started it.
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended
            found += (thread / "children").read_text().split()
    return sorted(map(int, found))


def suspend(process: int) -> None:
    """Keep a process from running until SIGCONT; none of its threads runs any more then.

    The signal alone does not: a busy system lets threads run on for a while, which may answer.
    """
    os.kill(process, signal.SIGSTOP)
    deadline_s = monotonic() + _TIMEOUT_S
    while set(_states(process)) != {"T"}:
        assert monotonic() < deadline_s, _states(process)
        Event().wait(_PERIOD_S)


def connections(process: int, port: int) -> int:
    """Return how many connections to a port a process has."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{process}/fd").iterdir()]
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links}
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table]
    return sum(
        row[1].endswith(f":{port:04X}") and row[3] == _OPEN and row[9] in own for row in rows
    )


def _states(process: int) -> list[str]:
    """Return the state of each thread."""
    stats = [thread.read_text() for thread in Path(f"/proc/{process}/task").glob("*/stat")]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]
