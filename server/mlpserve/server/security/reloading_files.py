"""Files that are read again when they change: certificates and tokens are renewed in service."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, Generic, TypeVar

from mlpserve.server.errors import StartError

logger = logging.getLogger(__name__)

_MAX_FILE_BYTES: Final = 1 << 20
_PERIOD_S: Final = 1.0
_T = TypeVar("_T")


class ReloadingFiles(Generic[_T]):
    """The parsed contents of some files, which are looked at once a second at most.

    Where they cannot be read any more, or hold nothing that can be used, what they held before
    stays, and the log says so once. Safe to use from many threads.

    Args:
        paths: The files.
        parse: Takes the contents of all, and returns what they mean. Raises StartError.
        clock_s: Returns seconds that only grow.

    Raises:
        StartError: They cannot be read, or used.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        parse: Callable[[Sequence[bytes]], _T],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = paths
        self._parse = parse
        self._clock_s = clock_s
        self._lock = Lock()
        self._looked_s = clock_s()
        contents = self._read()
        self._parsed = parse(contents)
        self._seen: Sequence[bytes] | str = contents  # or why they could not be read

    def get(self) -> _T:
        """Return what the files mean."""
        is_due = self._clock_s() - self._looked_s >= _PERIOD_S
        if is_due and self._lock.acquire(blocking=False):
            try:
                self._reload()
            finally:
                self._lock.release()
        return self._parsed

    def reload(self) -> None:
        """Read the files now, if they have changed."""
        with self._lock:
            self._reload()

    def _reload(self) -> None:
        self._looked_s = self._clock_s()
        try:
            # They are small. Their sizes and times would miss a change within a tick of the clock.
            contents: Sequence[bytes] | str = self._read()
        except StartError as error:
            contents = str(error)
        if contents == self._seen:
            return
        self._seen = contents
        try:
            if isinstance(contents, str):
                raise StartError(contents)  # noqa: TRY301 - told as what cannot be used
            self._parsed = self._parse(contents)
        except StartError as error:
            logger.error("not taken over, what was there before stays: %s", error)  # noqa: TRY400 - the sentence says it all
        else:
            logger.info("taken over: %s", ", ".join(map(str, self._paths)))

    def _read(self) -> Sequence[bytes]:
        return [_content(path) for path in self._paths]


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise StartError(f"{path}: expected at most {_MAX_FILE_BYTES} bytes")
    return content
