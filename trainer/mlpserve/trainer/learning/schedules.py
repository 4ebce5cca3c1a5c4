"""Learning rate schedules. A new one is a function and a line of ``SCHEDULES``.

Each takes the index of the step, from 0, and the number of steps, and returns a factor above 0 and
up to 1 by which the peak learning rate is multiplied.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

_TUTORIAL_LAST_FULL_STEP: Final = 75
_TUTORIAL_LOWER_FACTOR: Final = 0.2
_ONE_CYCLE_WARM_UP_SHARE: Final = 0.3
_START_FACTOR: Final = 0.04
_COSINE_WARM_UP_SHARE: Final = 0.05


def constant(step: int, steps: int) -> float:  # noqa: ARG001 - of the shape of all schedules
    """Return 1 at every step."""
    return 1.0


def tutorial(step: int, steps: int) -> float:  # noqa: ARG001 - as above
    """Return 1 up to step 75 and 0.2 above: the tutorial's learning rates, 0.5 and then 0.1."""
    return 1.0 if step <= _TUTORIAL_LAST_FULL_STEP else _TUTORIAL_LOWER_FACTOR


def one_cycle(step: int, steps: int) -> float:
    """Return one rise and one fall: up for the first 30 % of the steps, then down to almost 0.

    Both halves are half periods of a cosine. The slow start lets a high peak be survived, the peak
    crosses flat regions fast, the fall settles.
    Source: Smith and Topin, Super-Convergence (2018).
    """
    return _rise_and_fall(step, steps, _ONE_CYCLE_WARM_UP_SHARE)


def cosine(step: int, steps: int) -> float:
    """Return a short rise, of 5 % of the steps, and a long fall to almost 0: for long trainings.

    Source: Loshchilov and Hutter, SGDR (2017), without restarts.
    """
    return _rise_and_fall(step, steps, _COSINE_WARM_UP_SHARE)


def _rise_and_fall(step: int, steps: int, warm_up_share: float) -> float:
    warm_up_steps = warm_up_share * steps
    if step < warm_up_steps:
        return _START_FACTOR + (1 - _START_FACTOR) * _rise(step / warm_up_steps)
    return _rise((steps - step) / (steps - warm_up_steps))


def _rise(progress: float) -> float:
    """Return half a period of a cosine, from 0 at 0 to 1 at 1: (1 - cos(pi x)) / 2."""
    # As the square of a sine it is above 0 even where the cosine would be rounded to 1.
    return math.sin(math.pi / 2 * progress) ** 2


SCHEDULES: Final[Mapping[str, Callable[[int, int], float]]] = {
    "constant": constant,
    "tutorial": tutorial,
    "one-cycle": one_cycle,
    "cosine": cosine,
}
