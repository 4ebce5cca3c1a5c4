"""Rate limit of log lines: so many a second, so that nobody outside fills a disk with them."""

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Timer
from typing import Final

_LINES_A_PERIOD: Final = 20
_PERIOD_S: Final = 1.0


class RateLimit:
    """So many lines in each second. Safe to use from many threads.

    Args:
        report: Told, when the second is over, how many more there would have been.
        clock: Gives seconds.
    """

    def __init__(
        self, report: Callable[[int], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._lock = Lock()
        self._began_s = -_PERIOD_S
        self._lines = 0
        self._left_out = 0
        self._is_to_be_told = False

    def allows(self) -> bool:
        """Return whether another line may be written; the caller then writes it."""
        with self._lock:
            now_s = self._clock()
            if now_s - self._began_s >= _PERIOD_S:
                self._began_s, self._lines = now_s, 0
            self._lines += 1
            if self._lines <= _LINES_A_PERIOD:
                return True
            self._leave_out()
            return False

    def _leave_out(self) -> None:
        self._left_out += 1
        if not self._is_to_be_told:
            timer = Timer(_PERIOD_S, self._tell)
            timer.daemon = True
            with suppress(RuntimeError):  # no thread can be started; the next one tells of it too
                timer.start()
                self._is_to_be_told = True

    def _tell(self) -> None:
        with self._lock:
            left_out, self._left_out = self._left_out, 0
            self._is_to_be_told = False
        self._report(left_out)
