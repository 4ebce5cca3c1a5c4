"""What could not be copied from a store: why, and when to try it again."""

import logging
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_ROUNDS: Final = 64


@dataclass(frozen=True)
class _Failure:
    state: Hashable
    reason: str
    pause_rounds: int
    next_round: int


class Retries:
    """Remembers failures, so that they are said once, and tried again less and less often.

    A thing whose state has changed, which is a file that was replaced, is tried again at once.
    """

    def __init__(self) -> None:
        self._round = 0
        self._failures: dict[str, _Failure] = {}

    @property
    def reasons(self) -> Mapping[str, str]:
        """Return what failed, and why."""
        return {thing: failure.reason for thing, failure in self._failures.items()}

    def begin_round(self) -> None:
        """Count one more period."""
        self._round += 1

    def is_due(self, thing: str, state: Hashable) -> bool:
        """Return whether to try something now that is in some state."""
        failure = self._failures.get(thing)
        return failure is None or failure.state != state or self._round >= failure.next_round

    def failed(self, thing: str, state: Hashable, reason: str) -> None:
        """Take down that something failed in some state, and say so where it is news."""
        before = self._failures.get(thing)
        is_known = before is not None and before.state == state
        if before is None or not is_known or before.reason != reason:
            logger.warning("%s cannot be copied: %s", thing, reason)
        pause = min(2 * before.pause_rounds, _LONGEST_PAUSE_ROUNDS) if before and is_known else 1
        self._failures[thing] = _Failure(state, reason, pause, self._round + pause)

    def succeeded(self, thing: str) -> None:
        """Forget that something failed."""
        self._failures.pop(thing, None)

    def keep(self, things: Collection[str]) -> None:
        """Forget all but some things, because the others are gone."""
        self._failures = {
            thing: failure for thing, failure in self._failures.items() if thing in things
        }
