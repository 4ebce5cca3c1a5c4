"""Moving average of a network's parameters, which is often better than their last value.

Late steps of a training circle around a good place; their mean is nearer to it than each of them.
Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging (1992), with the
exponentially fading weights that are usual for networks.
"""

import numpy as np

from mlpserve.trainer.learning.parameters import Vector, blocks


class MovingAverage:
    """The mean of a vector over its steps, of which older ones count less and less.

    At step t, from 1: ``mean += (1 - d) (parameters - mean)`` with ``d = min(decay, t / (t + 9))``.
    At first d is small, so that where the training began is soon forgotten: of that, a step leaves
    the share d, and the first 20 steps together at most a ten-millionth.

    Attributes:
        mean: (P,) the mean so far.
    """

    def __init__(self, parameters: Vector, decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.mean = parameters.copy()

    def update(self, part: slice, step_number: int) -> None:
        """Take up a part of the parameters; once a step for each, after the optimizer."""
        weight = self.weight(step_number)
        for block in blocks(part):
            change = np.subtract(self._parameters[block], self.mean[block])
            change *= weight
            self.mean[block] += change

    def weight(self, step_number: int) -> float:
        """Return 1 - d."""
        return 1 - min(self._decay, step_number / (step_number + 9))
