"""Optimizers: how gradients change parameters. A new one is a class and a line of ``OPTIMIZERS``.

An optimizer works on vectors (see ``parameters``), in place, block after block. Threads may update
different parts of the vectors at the same time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from mlpserve.trainer.learning.parameters import BLOCK_VALUES, Vector, blocks


@dataclass(frozen=True)
class Step:
    """One step of an optimizer, as all parts of the parameters take it.

    Attributes:
        number: The number of the step, from 1.
        learning_rate: Its size, above 0.
        weight_decay: By which part, times the learning rate, parameters shrink before they are
            changed. Decoupled from the gradient; for gradient descent it is the derivative of
            ``weight_decay / 2 * sum(parameter^2)``.
            Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019).
    """

    number: int
    learning_rate: float
    weight_decay: float = 0.0


class Gradient(Protocol):
    """The derivative of the loss with respect to each parameter; mostly a vector."""

    def __getitem__(self, block: slice, /) -> Vector:
        """Return a block of it."""


class Optimizer(Protocol):
    """Changes one vector of parameters, step by step."""

    @property
    def state(self) -> Mapping[str, Vector]:
        """Return what the optimizer remembers between steps; the arrays themselves, by name."""

    def update(self, part: slice, gradient: Gradient, step: Step) -> None:
        """Change a part of the parameters so that the loss gets smaller.

        Args:
            part: Which of the parameters; once a step for each.
            gradient: The derivative of the loss with respect to each parameter.
            step: Which step it is.
        """


class GradientDescent:
    """Plain gradient descent: ``parameter -= rate * gradient``."""

    def __init__(self, parameters: Vector) -> None:
        self._parameters = parameters
        self.state: Mapping[str, Vector] = {}

    def update(self, part: slice, gradient: Gradient, step: Step) -> None:
        """See ``Optimizer.update``."""
        for block in blocks(part):
            parameters = _decayed(self._parameters[block], step)
            parameters -= step.learning_rate * gradient[block]


class Momentum:
    """Gradient descent with Nesterov's momentum. With g the gradient and m the velocity:

        m = b m + g        parameter -= rate * (g + b m)

    Source: Sutskever et al., On the importance of initialization and momentum (2013), in the form
    that looks ahead from the new velocity.
    """  # noqa: D415 - ends in its formulas

    _DECAY: Final = 0.9

    def __init__(self, parameters: Vector) -> None:
        self._parameters = parameters
        self._velocity = np.zeros_like(parameters)
        self.state = {"velocity": self._velocity}

    def update(self, part: slice, gradient: Gradient, step: Step) -> None:
        """See ``Optimizer.update``."""
        for block in blocks(part):
            parameters, velocity = _decayed(self._parameters[block], step), self._velocity[block]
            slope = gradient[block]
            velocity *= self._DECAY
            velocity += slope
            change = velocity * self._DECAY
            change += slope
            change *= step.learning_rate
            parameters -= change


class Adam:
    """Adam: steps scaled by running means of the gradient and of its square.

    With g the gradient at step t, counted from 1:

        m = b1 m + (1 - b1) g          the running mean
        v = b2 v + (1 - b2) g^2        the running mean square
        parameter -= rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)

    The divisions by ``1 - b^t`` make up for m and v starting at 0.
    Source: Kingma and Ba, Adam (2015), algorithm 1, with its constants.

    What is kept is M = m / (1 - b1) and V = v / (1 - b2), because each then takes a pass less. Put
    into the last line, numerator and denominator divided by ``rate (1 - b1) / (1 - b1^t)``:

        M = b1 M + g        V = b2 V + g^2        parameter -= M / (scale sqrt(V) + offset)

        offset = epsilon (1 - b1^t) / (rate (1 - b1))
        scale = sqrt((1 - b2) / (1 - b2^t)) (1 - b1^t) / (rate (1 - b1))
    """

    _MEAN_DECAY: Final = 0.9
    _SQUARE_DECAY: Final = 0.999
    _EPSILON: Final = 1e-8

    def __init__(self, parameters: Vector) -> None:
        self._parameters = parameters
        self._means = np.zeros_like(parameters)  # M
        self._squares = np.zeros_like(parameters)  # V
        self.state = {"means": self._means, "squares": self._squares}

    def update(self, part: slice, gradient: Gradient, step: Step) -> None:
        """See ``Optimizer.update``."""
        scale, offset = self._scale_and_offset(step)
        scratch = np.empty(BLOCK_VALUES, self._parameters.dtype)
        for block in blocks(part):
            parameters, slope = _decayed(self._parameters[block], step), gradient[block]
            means, squares, change = self._means[block], self._squares[block], scratch[: len(slope)]
            means *= self._MEAN_DECAY
            means += slope
            np.multiply(slope, slope, out=change)
            squares *= self._SQUARE_DECAY
            squares += change
            np.sqrt(squares, out=change)
            change *= scale
            change += offset
            np.divide(means, change, out=change)
            parameters -= change

    def _scale_and_offset(self, step: Step) -> tuple[float, float]:
        mean_share = 1 - self._MEAN_DECAY**step.number
        square_share = 1 - self._SQUARE_DECAY**step.number
        inverse_rate = mean_share / (step.learning_rate * (1 - self._MEAN_DECAY))
        scale = math.sqrt((1 - self._SQUARE_DECAY) / square_share) * inverse_rate
        return scale, self._EPSILON * inverse_rate


OPTIMIZERS: Final[Mapping[str, Callable[[Vector], Optimizer]]] = {
    "gradient-descent": GradientDescent,
    "momentum": Momentum,
    "adam": Adam,
}


def _decayed(parameters: Vector, step: Step) -> Vector:
    if step.weight_decay:
        parameters *= 1 - step.learning_rate * step.weight_decay
    return parameters
