"""What files say, read again when they change: certificates and tokens are renewed in service."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, Generic, TypeAlias, TypeVar

from mlpserve.server.errors import StartError

logger = logging.getLogger(__name__)

_LARGEST_FILE_BYTES: Final = 1 << 20
_LOOK_PERIOD_S: Final = 1.0

_T = TypeVar("_T")
_Signature: TypeAlias = tuple[tuple[int, int, int], ...]


class ReloadingFiles(Generic[_T]):
    """What is read from some files; looks, when asked, at most once a second whether they changed.

    Where they cannot be read any more, or say nothing that can be used, what they said before
    stays, and the log says so once. Safe to use from many threads.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[Sequence[bytes]], _T],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the files for the first time.

        Args:
            paths: The files.
            read: Takes the contents of all, and returns what they say. Raises StartError.
            clock_s: Returns seconds that only grow.

        Raises:
            StartError: They cannot be read, or used.
        """
        self._paths = paths
        self._read = read
        self._clock_s = clock_s
        self._lock = Lock()
        self._signature, self._said = self._read_now()
        self._looked_s = clock_s()

    def get(self) -> _T:
        """Return what the files say."""
        if self._clock_s() - self._looked_s >= _LOOK_PERIOD_S and self._lock.acquire(
            blocking=False
        ):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._said

    def look(self) -> None:
        """Look whether they changed, now."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        self._looked_s = self._clock_s()
        try:
            if _signature(self._paths) == self._signature:
                return
            self._signature, self._said = self._read_now()
        except StartError as error:
            logger.error("not taken over, what was there before stays: %s", error)  # noqa: TRY400 - the sentence says it all
            self._signature = _signature_or_none(self._paths)
        else:
            logger.info("taken over: %s", ", ".join(map(str, self._paths)))

    def _read_now(self) -> tuple[_Signature, _T]:
        """Return what the files say, and the signature of the state in which they say it."""
        signature = _signature(self._paths)
        said = self._read([_content(path) for path in self._paths])
        return signature, said


def _signature(paths: Sequence[Path]) -> _Signature:
    try:
        found = [path.stat() for path in paths]
    except OSError as error:
        raise StartError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def _signature_or_none(paths: Sequence[Path]) -> _Signature:
    try:
        return _signature(paths)
    except StartError:
        return ()


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise StartError(f"{path}: expected at most {_LARGEST_FILE_BYTES} bytes")
    return content
