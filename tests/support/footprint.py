"""Footprint of a process: memory, threads, descriptors."""

from pathlib import Path
from typing import NamedTuple, Self

_BYTES_PER_KB = 1024


class Footprint(NamedTuple):
    """What a process takes.

    Attributes:
        memory_bytes: What it has in memory.
        threads: How many it has.
        descriptors: How many files, sockets and the like it has open.
    """

    memory_bytes: int
    threads: int
    descriptors: int

    @classmethod
    def of(cls, process: int) -> Self:
        """Return what a process takes now."""
        folder = Path(f"/proc/{process}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        memory_bytes = int(status["VmRSS"].split()[0]) * _BYTES_PER_KB
        return cls(memory_bytes, int(status["Threads"]), len(list((folder / "fd").iterdir())))
