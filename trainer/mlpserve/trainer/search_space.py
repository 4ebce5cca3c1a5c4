"""Search space of a sweep: the settings that trials vary, and the points that are tried.

Values are texts, as the trainer's flags have them.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

_DIGITS: Final = 4  # of a value that is drawn from a range: more make no difference


@dataclass(frozen=True)
class Choices:
    """A setting that is one of some values.

    Attributes:
        name: The flag, without its dashes.
        options: The values.
    """

    name: str
    options: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the values as ``--vary`` takes them."""
        return "|".join(self.options)

    @property
    def count(self) -> float:
        """Return how many values there are."""
        return len(self.options)

    @property
    def limits(self) -> tuple[str, ...]:
        """Return the values that must be good for all of them to be."""
        return self.options

    def at(self, share: float) -> str:
        """Return the value at a place, from 0 to below 1."""
        return self.options[int(share * len(self.options))]


@dataclass(frozen=True)
class Range:
    """A setting that is a number between two others, or one of these.

    Attributes:
        name: The flag, without its dashes.
        low: The lowest value.
        high: The highest value.
        is_logarithmic: Whether equal factors are equally probable, rather than equal distances.
        is_integer: Whether it is a whole number.
    """

    name: str
    low: float
    high: float
    is_logarithmic: bool = False
    is_integer: bool = False

    @property
    def text(self) -> str:
        """Return the range as ``--vary`` takes it."""
        low, high = self.limits
        return f"{low}..{high}{':log' if self.is_logarithmic else ''}"

    @property
    def count(self) -> float:
        """Return how many values there are; infinity for a range of fractions."""
        return self.high - self.low + 1 if self.is_integer else math.inf

    @property
    def limits(self) -> tuple[str, ...]:
        """Return the values that must be good for all of them to be."""
        return (self._written(self.low), self._written(self.high))

    @property
    def options(self) -> tuple[str, ...]:
        """Return all values, of which there must be a number."""
        return tuple(str(value) for value in range(int(self.low), int(self.high) + 1))

    def at(self, share: float) -> str:
        """Return the value at a place, from 0 to below 1."""
        # Whole numbers have half a step on either side, so that all are equally probable.
        margin = 0.5 if self.is_integer else 0.0
        low, high = self.low - margin, self.high + margin
        by_factor, by_distance = self.is_logarithmic, low + (high - low) * share
        value = low * (high / low) ** share if by_factor else by_distance
        value = round(value) if self.is_integer else float(f"{value:.{_DIGITS}g}")
        return self._written(min(max(value, self.low), self.high))

    def _written(self, value: float) -> str:
        return str(int(value)) if self.is_integer else repr(float(value))


Parameter: TypeAlias = Choices | Range
Point: TypeAlias = tuple[str, ...]  # a value for each parameter


def points(parameters: Sequence[Parameter], count: int, rng: np.random.Generator) -> list[Point]:
    """Return different points of a space, at most ``count``; all of them where there are no more.

    They are spread: each range is cut into as many parts as there are points, and each part has
    one (a Latin hypercube), so that a handful of points leaves no half of a range untried.

    Args:
        parameters: What is varied.
        count: How many points are wanted.
        rng: What draws them.
    """
    size = math.prod(parameter.count for parameter in parameters)
    if size <= count:
        grid = list(itertools.product(*(parameter.options for parameter in parameters)))
        return [grid[index] for index in rng.permutation(len(grid))]
    places = (
        np.array([rng.permutation(count) for _ in parameters])
        + rng.random((len(parameters), count))
    ) / count
    found: dict[Point, None] = {}
    for column in places.T:
        point = _point(parameters, column.tolist())
        while point in found:  # as where a setting has few values
            point = _point(parameters, rng.random(len(parameters)).tolist())
        found[point] = None
    return list(found)


def _point(parameters: Sequence[Parameter], places: Sequence[float]) -> Point:
    return tuple(parameter.at(place) for parameter, place in zip(parameters, places, strict=True))
