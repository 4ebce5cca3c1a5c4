"""Retries of what could not be copied from a store, with an exponential back-off."""

import logging
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

_MAX_PAUSE_ROUNDS: Final = 64


@dataclass(frozen=True)
class _Failure:
    state: Hashable
    reason: str
    pause_rounds: int
    next_round: int


class Retries:
    """Remembers failures, so that they are logged once, and tried again less and less often.

    An item whose state has changed, which is a file that was replaced, is tried again at once.
    """

    def __init__(self) -> None:
        self._round = 0
        self._failures: dict[str, _Failure] = {}

    @property
    def reasons(self) -> Mapping[str, str]:
        """Return what failed, and why."""
        return {item: failure.reason for item, failure in self._failures.items()}

    def begin_round(self) -> None:
        """Count one more period."""
        self._round += 1

    def is_due(self, item: str, state: Hashable) -> bool:
        """Return whether to try an item now that is in some state."""
        failure = self._failures.get(item)
        return failure is None or failure.state != state or self._round >= failure.next_round

    def failed(self, item: str, state: Hashable, reason: str) -> None:
        """Remember that an item failed in some state, and log it where it is news."""
        before = self._failures.get(item)
        is_known = before is not None and before.state == state
        if before is None or not is_known or before.reason != reason:
            logger.warning("%s cannot be copied: %s", item, reason)
        pause = min(2 * before.pause_rounds, _MAX_PAUSE_ROUNDS) if before and is_known else 1
        self._failures[item] = _Failure(state, reason, pause, self._round + pause)

    def succeeded(self, item: str) -> None:
        """Forget that an item failed."""
        self._failures.pop(item, None)

    def keep(self, items: Collection[str]) -> None:
        """Forget all but some items, because the others are gone."""
        self._failures = {
            item: failure for item, failure in self._failures.items() if item in items
        }
