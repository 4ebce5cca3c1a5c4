"""Memory trimmer: has the allocator give back what a process needs no more.

After large requests, or thousands that were taken back, glibc keeps most of what they took, because
some little thing beyond it is in use: 200 MB and more, in the arenas of threads that may never need
it again. ``malloc_trim`` gives such pages back wherever they are.

Less is left to it where what takes megabytes is mapped and unmapped by itself, however often that
happens; by itself, glibc would soon do so for 32 MB and more only. Fewer arenas would leave less
still, but cost 3 to 10 % of the requests.
"""

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_LOOK_PERIOD_S: Final = 5.0
_SLACK_BYTES: Final = 16 << 20  # what requests of the usual sizes take and free all the time
# A trim takes some 20 ms for 200 MB. So one that gave back little is not repeated at once. But what
# was in use then may be free later: half of what it left is in doubt at the next look.
_FORGOTTEN_SHARE: Final = 2
# glibc's mallopt(3): parameter and value. A threshold that is set no longer grows by itself.
_MALLOC_OPTIONS: Final = (
    (-3, 4 << 20),  # M_MMAP_THRESHOLD: below it are the 0.8 MB of 1024 images, again and again
    # M_TRIM_THRESHOLD: 32 callers with 1024 images each free that much at once, and take it again.
    (-1, 32 << 20),
)


class MemoryTrimmer:
    """Trims the memory of a process when it is larger than after the last time. For one thread.

    Args:
        used_bytes: Returns how much the process has now.
        trim: Gives back what can be.
    """

    def __init__(self, used_bytes: Callable[[], int], trim: Callable[[], object]) -> None:
        self._used_bytes = used_bytes
        self._trim = trim
        self._least_bytes = self._left_bytes = used_bytes()

    def look(self) -> None:
        """Trim, where that may be worth it."""
        if self._used_bytes() > self._left_bytes + _SLACK_BYTES:
            self._trim()
            self._left_bytes = self._used_bytes()
            self._least_bytes = min(self._least_bytes, self._left_bytes)
        else:
            self._left_bytes -= (self._left_bytes - self._least_bytes) // _FORGOTTEN_SHARE


def trim_memory() -> None:
    """Have this process give memory back from now on; not where it has another libc than glibc.

    It starts a thread. To be called before those are started that serve.
    """
    libc = ctypes.CDLL(None)
    trim = getattr(libc, "malloc_trim", None)
    if trim is not None and _STATM.exists():
        for option, value in _MALLOC_OPTIONS:
            libc.mallopt(option, value)
        Thread(target=_look_again_and_again, args=(trim,), name="trim", daemon=True).start()


def _look_again_and_again(trim: Callable[[int], int]) -> None:
    trimmer = MemoryTrimmer(_anonymous_bytes, lambda: trim(0))
    nobody_ends_it = Event()
    while not nobody_ends_it.wait(_LOOK_PERIOD_S):
        with suppress(OSError):  # no descriptor is left
            trimmer.look()


def _anonymous_bytes() -> int:
    """Return how much memory this process has that is no file's, as weights are."""
    _, resident, shared, *_ = map(int, _STATM.read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
