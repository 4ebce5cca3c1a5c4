"""The C library's allocator, told to keep what is freed.

Each call fills and frees buffers of about a megabyte. Left to itself, glibc returns such memory to
the system at once, and the next call takes a page fault for every 4 KiB of it.
"""

import ctypes
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # of malloc.h
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 32 * 1024 * 1024  # the largest that glibc takes for the second


def keep_freed_memory() -> None:
    """Have this process keep freed memory for its next calls; nothing where that is not glibc's."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return
    mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_TRIM_THRESHOLD, 4 * _KEPT_BYTES)
