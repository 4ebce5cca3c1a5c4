"""Figures of repeated measurements: medians, ranges, ratios."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of some measurements of the same thing.

    The middle is the median, because a machine disturbs a measurement in one direction only, and
    now and then by a lot.
    """

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of ``values``, at least one."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int, *, scale: float = 1.0) -> str:
        """Return ``median (lowest-highest)``, each times ``scale``, with so many digits."""
        median, lowest, highest = (
            f"{scale * value:.{digits}f}" for value in (self.median, self.lowest, self.highest)
        )
        return f"{median} ({lowest}-{highest})"


def ratios(values: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return each value over the reference of the same round.

    A round's measurements lie close together in time, so that what slows the machine for minutes
    slows both, and their ratio is steadier than either.
    """
    return [value / other for value, other in zip(values, reference, strict=True)]
