"""How gradients change parameters. Each optimizer changes the arrays that it is given, in place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from mlpserve.model.activations import FloatArray


class Optimizer(Protocol):
    """Changes the parameters that it was made for, one step at a time."""

    def step(self, gradients: Sequence[FloatArray], learning_rate: float) -> None:
        """Change the parameters so that the loss gets smaller.

        Args:
            gradients: The derivative of the loss with respect to each parameter, in their order.
            learning_rate: The size of the step.
        """


class GradientDescent:
    """Plain gradient descent: ``parameter -= learning_rate * gradient``."""

    def __init__(self, parameters: Sequence[FloatArray]) -> None:
        self._parameters = parameters

    def step(self, gradients: Sequence[FloatArray], learning_rate: float) -> None:
        """See ``Optimizer.step``."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter -= learning_rate * gradient


class Adam:
    """Adam: steps scaled by running means of the gradient and of its square.

    With g the gradient at step t, counted from 1:

        m = b1 m + (1 - b1) g          the running mean
        v = b2 v + (1 - b2) g^2        the running mean square
        parameter -= rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)

    The divisions by ``1 - b^t`` make up for m and v starting at 0.
    Source: Kingma and Ba, Adam (2015), algorithm 1, with its constants.
    """

    _MEAN_DECAY: Final = 0.9
    _SQUARE_DECAY: Final = 0.999
    _EPSILON: Final = 1e-8

    def __init__(self, parameters: Sequence[FloatArray]) -> None:
        self._parameters = parameters
        self._means = [np.zeros_like(parameter) for parameter in parameters]
        self._squares = [np.zeros_like(parameter) for parameter in parameters]
        self._steps = 0

    def step(self, gradients: Sequence[FloatArray], learning_rate: float) -> None:
        """See ``Optimizer.step``."""
        self._steps += 1
        rate = learning_rate / (1 - self._MEAN_DECAY**self._steps)
        square_scale = 1 / (1 - self._SQUARE_DECAY**self._steps)
        for parameter, gradient, mean, square in zip(
            self._parameters, gradients, self._means, self._squares, strict=True
        ):
            mean *= self._MEAN_DECAY
            mean += (1 - self._MEAN_DECAY) * gradient
            square *= self._SQUARE_DECAY
            square += (1 - self._SQUARE_DECAY) * gradient * gradient
            parameter -= rate * mean / (np.sqrt(square * square_scale) + self._EPSILON)


OPTIMIZERS: Final[Mapping[str, Callable[[Sequence[FloatArray]], Optimizer]]] = {
    "gradient-descent": GradientDescent,
    "adam": Adam,
}
