"""Log of requests that were refused or have failed: each of them once, within limits.

A flood of bad requests fills no disk: after some lines in a second, the others are only counted.
"""

import logging
import re
import secrets
from collections.abc import Sequence
from typing import Final

from mlpserve.server.telemetry.logs import details
from mlpserve.server.telemetry.rate_limit import RateLimit

REQUEST_ID_KEY: Final = "mlpserve-request-id"
_CALLERS_KEY: Final = "x-request-id"
_SANE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,63}")
_OWN_ID_BYTES: Final = 8
_MAX_CHARACTERS: Final = 1000  # of a sentence, which may repeat what was sent

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
            sentence = str(error)[:_MAX_CHARACTERS]
            logger.info("refused %s: %s [%s]", method, sentence, request_id, extra=extra)

    def failed(self, method: str, error: Exception, *, code: str, request_id: str) -> None:
        """Log that a request failed through a fault of ours."""
        if self._failures.allows():
            extra = details(method=method, code=code, request_id=request_id)
            logger.error("%s failed [%s]", method, request_id, exc_info=error, extra=extra)
