"""What the log says of requests that were refused or have failed: each of them once, within limits.

A flood of bad requests fills no disk: after some lines in a second, the others are only counted.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock, Timer
from typing import Final

from mlpserve.server.telemetry.logs import details

REQUEST_ID_KEY: Final = "mlpserve-request-id"
_CALLERS_KEY: Final = "x-request-id"
_SANE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,63}")
_OWN_ID_BYTES: Final = 8
_LINES_A_PERIOD: Final = 20
_PERIOD_S: Final = 1.0

logger = logging.getLogger(__name__)


def request_id(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """Return the id by which a request is known in the log: its caller's own, or one of ours.

    Args:
        metadata: What the caller sent along. An id that is long, or has other characters than
            letters, digits and a few signs, is not taken over.
    """
    for key, value in metadata:
        if key == _CALLERS_KEY and isinstance(value, str) and _SANE_ID.fullmatch(value):
            return value
    return secrets.token_hex(_OWN_ID_BYTES)


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


class RequestLog:
    """Logs what becomes of requests. Safe to use from many threads."""

    def __init__(self) -> None:
        # One each: a flood of refusals is not to hide a fault of ours.
        self._refusals = RateLimit(lambda count: logger.info("refused %d more requests", count))
        self._failures = RateLimit(lambda count: logger.error("%d more requests failed", count))

    def refused(self, method: str, error: Exception, *, code: str, request_id: str) -> None:
        """Log that a request was refused, which is its caller's affair."""
        if self._refusals.allows():
            extra = details(method=method, code=code, request_id=request_id)
            logger.info("refused %s: %s [%s]", method, error, request_id, extra=extra)

    def failed(self, method: str, error: Exception, *, code: str, request_id: str) -> None:
        """Log that a request failed through a fault of ours."""
        if self._failures.allows():
            extra = details(method=method, code=code, request_id=request_id)
            logger.error("%s failed [%s]", method, request_id, exc_info=error, extra=extra)
