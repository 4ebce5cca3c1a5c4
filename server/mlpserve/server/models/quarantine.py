"""Quarantine of the versions that failed their checks, until their files change."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from mlpserve.model.folder import VersionKey
from mlpserve.server.models.scanner import Signature

logger = logging.getLogger(__name__)

_MAX_REASON: Final = 500


class LoadError(NamedTuple):
    """Why a version cannot be served. A value, so that what failed to load is kept alive by none.

    Attributes:
        reason: In a sentence that may be shown to callers.
        is_transient: Whether it may be otherwise the next time: for want of memory, say. Else it
            lasts until the version's files change.
    """

    reason: str
    is_transient: bool = False


class Quarantine:
    """Versions that are not to be served. For one thread at a time.

    Attributes:
        failures: How often versions of a model were put into it.
    """

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self._reasons: dict[VersionKey, str] = {}
        self._signatures: dict[VersionKey, Signature] = {}  # of the files that failed for good
        self._last_reasons: dict[VersionKey, str] = {}

    @property
    def reasons(self) -> Mapping[VersionKey, str]:
        """Return the versions, and why they are not to be served."""
        return self._reasons.copy()

    def add(self, key: VersionKey, error: LoadError, signature: Signature) -> None:
        """Put a version into quarantine; log it, unless it has failed like this just before.

        Args:
            key: The version.
            error: How it failed.
            signature: That of the files that failed.
        """
        reason = self._reasons[key] = _as_sentence(error.reason)
        if not error.is_transient:
            self._signatures[key] = signature
        self.failures[key.name] += 1
        if self._last_reasons.get(key) != reason:
            logger.error("not served: %s: %s", key, reason)
        self._last_reasons[key] = reason

    def release(self, keys: Iterable[VersionKey]) -> None:
        """Have versions tried again."""
        for key in keys:
            self._reasons.pop(key, None)
            self._signatures.pop(key, None)

    def release_changed(self, signature_of: Callable[[VersionKey], Signature]) -> None:
        """Have those versions tried again whose files are others than those that failed."""
        self.release(
            key for key in list(self._reasons) if self._signatures.get(key) != signature_of(key)
        )

    def note_passed(self, keys: Iterable[VersionKey]) -> None:
        """Note that versions are served now, so that the next failure of one is news."""
        for key in keys:
            self._last_reasons.pop(key, None)

    def keep(self, keys: frozenset[VersionKey]) -> None:
        """Forget all versions but these: the others are gone."""
        self.release(self._reasons.keys() - keys)
        self.note_passed(self._last_reasons.keys() - keys)


def _as_sentence(reason: str) -> str:
    """Return a reason as it may be logged and sent, whatever a broken file has put into it."""
    return " ".join(reason.split())[:_MAX_REASON].encode(errors="replace").decode()
