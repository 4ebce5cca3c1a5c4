"""Which processes have started which, as Linux tells it."""

from contextlib import suppress
from pathlib import Path


def children(process: int) -> list[int]:
    """Return the ids of the processes that a process has started and that it has not outlived."""
    found: list[str] = []
    # Each is listed with the thread that started it.
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended
            found += (thread / "children").read_text().split()
    return sorted(map(int, found))
