"""Axes of charts: the range that they show, their ticks, and where on them a value is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_STEPS: Final = (1, 2, 5)  # of ticks, times a power of ten: what people count in
_TICKS: Final = 5  # about so many
_MAX_LOGARITHMIC_TICKS: Final = 9
_MIN_SHARE: Final = 1e-3  # of its values that an axis spans: less is no difference
_MAX_DECIMALS: Final = 4


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low: The smallest value shown.
        high: The largest value shown, above ``low``.
        ticks: The values that are marked, rising.
        tick_text: Returns what stands beside a tick.
        is_logarithmic: Whether equal distances are equal factors; then ``low`` is above 0.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    tick_text: Callable[[float], str]
    is_logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return where a value is: 0 at the lower end of the axis, 1 at the upper one."""
        low, high, value = map(self._linear, (self.low, self.high, value))
        return (value - low) / (high - low)

    def _linear(self, value: float) -> float:
        return math.log10(value) if self.is_logarithmic else value


def linear_axis(
    values: Sequence[float],
    *,
    suffix: str = "",
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> Axis:
    """Return an axis from a round number to a round number that shows all values.

    Args:
        values: What is to be shown, at least one.
        suffix: What follows each number, a unit.
        lowest: The value that the axis may not go below.
        highest: The value that it may not go above.
    """
    # A loss of nothing is a little below 0, where the axis may not go.
    values = [min(max(value, lowest), highest) for value in values]
    span = max(max(values) - min(values), _MIN_SHARE * abs(max(values))) or 1.0
    step = _round_step(span / _TICKS)
    first, last = math.floor(min(values) / step), math.ceil(max(values) / step)
    if first == last:
        first, last = first - 1, last + 1
    multiples = [index * step for index in range(first, last + 1)]
    ticks = tuple(tick for tick in multiples if lowest <= tick <= highest)
    return Axis(
        max(multiples[0], lowest), min(multiples[-1], highest), ticks, _decimals(step, suffix)
    )


def count_axis(count: int) -> Axis:
    """Return an axis of the whole numbers from 1 to ``count``."""
    step = max(1, round(_round_step(count / _TICKS)))
    ticks = [1, *range(step, count + 1, step)] if step > 1 else range(1, count + 1)
    # A single point stands in the middle.
    low, high = (1.0, float(count)) if count > 1 else (0.5, 1.5)
    return Axis(low, high, tuple(map(float, ticks)), "{:,.0f}".format)


def name_axis(names: Sequence[str]) -> Axis:
    """Return an axis of names at equal distances, the first at 1."""
    ticks = tuple(map(float, range(1, len(names) + 1)))
    return Axis(0.5, len(names) + 0.5, ticks, lambda place: names[round(place) - 1])


def logarithmic_axis(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis from a round number to a round number that shows all values.

    Args:
        values: What is to be shown, at least one, all above 0.
    """
    # One decade more below, where the logarithm was rounded up to a whole number.
    lowest, highest = math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values)))
    exponents = range(lowest, highest + 1)
    # Read from text, because 5 * 10.0**-6 is not quite 5e-6.
    marks = [float(f"{step}e{exponent}") for exponent in exponents for step in _STEPS]
    low = max(mark for mark in marks if mark <= min(values))
    high = min(mark for mark in marks if mark >= max(values) and mark > low)
    ticks = [mark for mark in marks if low <= mark <= high]
    if len(ticks) > _MAX_LOGARITHMIC_TICKS:
        decades = [mark for mark in marks[:: len(_STEPS)] if low <= mark <= high]
        ticks = decades[:: -(-len(decades) // _MAX_LOGARITHMIC_TICKS)]
    return Axis(low, high, tuple(ticks), "{:g}".format, is_logarithmic=True)


def _round_step(smallest: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below ``smallest``."""
    power = 10.0 ** math.floor(math.log10(smallest))
    return next(step * power for step in (*_STEPS, 10) if step * power >= smallest * (1 - 1e-9))


def _decimals(step: float, suffix: str) -> Callable[[float], str]:
    """Return what writes the multiples of a step with as many decimals as the step has."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals > _MAX_DECIMALS:
        return lambda value: f"{value:.6g}{suffix}"
    # Adding 0.0 turns a -0.0 into 0.0.
    return lambda value: f"{round(value, decimals) + 0.0:.{decimals}f}{suffix}"
