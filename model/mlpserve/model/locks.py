"""File locks: the kernel's (``flock``), held by one process at a time.

Such a lock ends with the process that holds it, however that ends; so nothing is left locked. A
file system without locks, as some of networks are, locks nothing: there a lock is granted to
whoever asks. Knows nothing of models; needs no NumPy.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


class LockedError(Exception):
    """Another process holds the lock."""


@contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing.

    Args:
        path: The file; what it holds is left as it is.
        wait: Whether to wait for another process that holds it.

    Raises:
        LockedError: Another process holds it, and it is not to be waited for.
        OSError: The file cannot be made or opened.
    """
    descriptor = _open(path)
    try:
        take_lock(descriptor, wait=wait)
        yield
    finally:
        os.close(descriptor)  # which unlocks it, as the end of a process does


def lock_folder(folder: Path) -> int:
    """Lock a folder until this process ends, or the descriptor that is returned is closed.

    Raises:
        LockedError: Another process holds it.
        OSError: The folder cannot be opened, or what holds it cannot lock.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        take_lock(descriptor, wait=False)
    except (LockedError, OSError):
        os.close(descriptor)
        raise
    return descriptor


def take_lock(descriptor: int, *, wait: bool) -> None:
    """Lock what a descriptor is open on, until all of its descriptors are closed.

    Raises:
        LockedError: As for ``file_lock``.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError from error
    except OSError as error:
        # Some file systems of networks have no locks.
        logger.debug("cannot be locked: %s", error)


def _open(path: Path) -> int:
    try:
        # File systems of networks lock only what may be written to.
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        # It is another user's. All others lock what may be read.
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
