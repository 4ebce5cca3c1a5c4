"""Versions that failed their checks, and why; tried again when their files change."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from mlpserve.model.folder import VersionKey
from mlpserve.server.models.scanner import Signature

logger = logging.getLogger(__name__)

_LONGEST_REASON: Final = 500


class Failure(NamedTuple):
    """How a version failed.

    Attributes:
        signature: That of the files that failed; None where it may be otherwise the next time.
        reason: Why, in a sentence that may be shown to callers.
    """

    signature: Signature | None
    reason: str


class Quarantine:
    """Versions that are not to be served. For one thread at a time."""

    def __init__(self) -> None:
        self._failures: dict[VersionKey, Failure] = {}
        self._last_reasons: dict[VersionKey, str] = {}

    @property
    def reasons(self) -> Mapping[VersionKey, str]:
        """Return the versions, and why they are not to be served."""
        return {key: failure.reason for key, failure in self._failures.items()}

    def add(self, key: VersionKey, failure: Failure) -> None:
        """Put a version into quarantine; log it, unless it has failed like this just before."""
        failure = failure._replace(reason=_as_sentence(failure.reason))
        self._failures[key] = failure
        if self._last_reasons.get(key) != failure.reason:
            logger.error("not served: %s: %s", key, failure.reason)
        self._last_reasons[key] = failure.reason

    def release(self, keys: Iterable[VersionKey]) -> None:
        """Have versions tried again."""
        for key in keys:
            self._failures.pop(key, None)

    def release_changed(self, signature_of: Callable[[VersionKey], Signature]) -> None:
        """Have those versions tried again whose files are others than those that failed."""
        failures = list(self._failures.items())
        self.release(key for key, failed in failures if failed.signature != signature_of(key))

    def note_passed(self, keys: Iterable[VersionKey]) -> None:
        """Note that versions are served now, so that the next failure of one is news."""
        for key in keys:
            self._last_reasons.pop(key, None)

    def keep(self, keys: frozenset[VersionKey]) -> None:
        """Forget all versions but these: the others are gone."""
        self._failures = {key: known for key, known in self._failures.items() if key in keys}
        self._last_reasons = {key: why for key, why in self._last_reasons.items() if key in keys}


def _as_sentence(reason: str) -> str:
    """Return a reason as it may be logged and sent, whatever a broken file has put into it."""
    return " ".join(reason.split())[:_LONGEST_REASON].encode(errors="replace").decode()
