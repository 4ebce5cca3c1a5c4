"""Private copies of weights files, which nobody can change, truncate or delete.

A file in the models folder may be any of these at any time, and a process that has mapped it would
then be killed or compute with other weights than were checked. So each is copied once, into memory
without a name, and all processes map this one copy. Needs no NumPy.
"""

import errno
import hashlib
import io
import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mlpserve.server.system.anonymous_file import anonymous_file

_CHUNK_BYTES: Final = 1 << 20


class SnapshotError(Exception):
    """A file cannot be copied; the message says why, without the file's path.

    Attributes:
        is_lasting: Whether it would fail again until the file changes.
    """

    def __init__(self, message: str, *, is_lasting: bool) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting


class Snapshot:
    """A copy of a file in memory; given back when nobody holds it any more.

    Args:
        descriptor: Of the copy; this object closes it.
        digest: The SHA-256 of the copy, 64 hexadecimal digits.
        size_bytes: Its size.
    """

    def __init__(self, descriptor: int, *, digest: str, size_bytes: int) -> None:
        self.descriptor: Final = descriptor
        self.digest: Final = digest
        self.size_bytes: Final = size_bytes
        weakref.finalize(self, os.close, descriptor)


def take_snapshot(path: Path, *, max_bytes: int) -> Snapshot:
    """Copy a file.

    Args:
        path: The file.
        max_bytes: A larger file is refused before anything of it is read.

    Raises:
        SnapshotError: The file is missing, no plain file, too large or cannot be read.
    """
    try:
        with _opened(path) as source:
            size_bytes = _checked_size(source, max_bytes)
            return _copied(source, size_bytes)
    except FileNotFoundError as error:
        raise SnapshotError(f"{path.name} is missing", is_lasting=True) from error
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror}"
        raise SnapshotError(message, is_lasting=False) from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    # A pipe would be waited for, for ever perhaps.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _checked_size(source: int, max_bytes: int) -> int:
    status = os.fstat(source)
    if not stat.S_ISREG(status.st_mode):
        raise SnapshotError("expected a file, got a folder, a pipe or a device", is_lasting=True)
    if status.st_size > max_bytes:
        raise SnapshotError(
            f"expected a weights file of at most {max_bytes} bytes, got {status.st_size}; "
            "--max-version-mb allows larger ones",
            is_lasting=True,
        )
    return status.st_size


def _copied(source: int, size_bytes: int) -> Snapshot:
    """Copy no more than the size that was checked, though the file may grow meanwhile."""
    digest = hashlib.sha256()
    copied_bytes = 0
    target = anonymous_file("mlpserve-weights")
    try:
        while chunk := os.read(source, min(_CHUNK_BYTES, size_bytes - copied_bytes)):
            digest.update(chunk)
            copied_bytes += len(chunk)
            _write_all(target, chunk)
        return Snapshot(target, digest=digest.hexdigest(), size_bytes=copied_bytes)
    except BaseException:
        os.close(target)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class SnapshotFile(io.RawIOBase):
    """Reads a snapshot at a position of its own; does not close it.

    The system's position belongs to the copy, and so to all processes that read it at once.

    Args:
        descriptor: Of the snapshot.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def fileno(self) -> int:
        """Return the snapshot's descriptor."""
        return self._descriptor

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and return it."""
        starts = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: os.fstat(self._descriptor).st_size,
        }
        if (position := starts[whence] + offset) < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as any file has it
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - Python 3.11 has no name for it
        """Read into a buffer, and return how many bytes were read."""
        count = os.preadv(self._descriptor, [buffer], self._position)
        self._position += count
        return count
