"""Costs that reproduce the medians of some measurements: a search by Nelder and Mead.

Source: Nelder and Mead, A simplex method for function minimization (1965).
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from queueing.measurement import Calls
from queueing.simulation import Costs, Disturbance, Seconds, closed_loop

_BEGIN: Final = Costs(1.5e-4, 6e-5, 4e-5, 2e-6, 1e-5)
_REQUESTS: Final = 400  # that are simulated for each median
_STEPS: Final = 400
_SPREAD: Final = 0.5  # of the first simplex, in logarithms


def fitted_costs(measured: Sequence[Calls], alone_s: Seconds) -> Costs:
    """Return the costs that fit the medians of closed loops best.

    The machine disturbs the simulated ones as it did the measured ones, or else the costs would
    hold what it takes away, which comes on top of them. The draws are the same each time.

    What is minimised is the sum of the squared logarithms of simulated over measured, so that a
    factor counts the same for a short time and for a long one. The costs are searched as logarithms
    as well, and so stay above 0.
    """

    def badness(logarithms: Seconds) -> float:
        costs = Costs(*np.exp(logarithms).tolist())
        return float(
            sum(
                np.log(_median(each, costs, alone_s) / np.median(each.took_s)) ** 2
                for each in measured
            )
        )

    begin = np.log(list(vars(_BEGIN).values()))
    return Costs(*np.exp(minimum(badness, begin, steps=_STEPS)).tolist())


def _median(calls: Calls, costs: Costs, alone_s: Seconds) -> float:
    disturbance = Disturbance(alone_s, np.random.default_rng(0))
    took = closed_loop(calls.concurrency, calls.images, _REQUESTS, costs, disturbance)
    return float(np.median(took[len(took) // 4 :]))


def minimum(
    function: Callable[[Seconds], float], begin: npt.NDArray[np.float64], *, steps: int
) -> npt.NDArray[np.float64]:
    """Return about where a function is lowest, near ``begin``."""
    points = [begin, *(begin + _SPREAD * row for row in np.eye(len(begin)))]
    ranked = sorted(((function(each), tuple(each)) for each in points), key=lambda it: it[0])
    for _ in range(steps):
        centre = np.mean([each for _, each in ranked[:-1]], axis=0)
        away = centre - np.array(ranked[-1][1])

        def at(
            factor: float, centre: Seconds = centre, away: Seconds = away
        ) -> tuple[float, tuple[float, ...]]:
            point = centre + factor * away
            return function(point), tuple(point)

        found = at(1.0)
        if found[0] < ranked[0][0]:
            found = min(found, at(2.0))
        elif found[0] >= ranked[-2][0]:
            found = min(found, at(0.5), at(-0.5))
        if found[0] < ranked[-1][0]:
            ranked[-1] = found
        else:  # all draw nearer to the best
            best = np.array(ranked[0][1])
            halved = [(best + np.array(each)) / 2 for _, each in ranked[1:]]
            ranked[1:] = [(function(each), tuple(each)) for each in halved]
        ranked.sort(key=lambda it: it[0])
    return np.array(ranked[0][1])
