"""Initializations: the parameters that a network begins with. All biases begin at 0.

A new one is a function and a line of ``INITIALIZATIONS``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from mlpserve.model.activations import ACTIVATIONS, OUTPUT_ACTIVATION
from mlpserve.model.network import Layer, Network

_TUTORIAL_STANDARD_DEVIATION: Final = 0.1


def tutorial(layer_sizes: Sequence[int], activation: str, seed: int) -> Network:
    """Return the tutorial's network: float64 normal weights of standard deviation 0.1.

    The tutorial calls ``np.random.seed(seed)`` and draws each layer with ``np.random.randn`` as
    (fan_out, fan_in), because it keeps images as columns. The same stream, drawn from a generator
    of our own and transposed, gives its numbers without touching global state.
    """
    legacy = np.random.RandomState(seed)

    def weights(fan_in: int, fan_out: int) -> np.typing.NDArray[np.float64]:
        drawn = legacy.randn(fan_out, fan_in) * _TUTORIAL_STANDARD_DEVIATION
        return np.ascontiguousarray(drawn.T)

    return _network(layer_sizes, activation, lambda fan_in, fan_out, _: weights(fan_in, fan_out))


def he(layer_sizes: Sequence[int], activation: str, seed: int) -> Network:
    """Return float64 normal weights of variance gain / fan_in, so that signals keep their size.

    The gain is that of the activation: 2 for relu, which drops half of what it is given. Of the
    output layer it is 1.
    Source: He et al., Delving Deep into Rectifiers (2015), section 2.2.
    """
    rng = np.random.default_rng(seed)

    def weights(fan_in: int, fan_out: int, activation: str) -> np.typing.NDArray[np.float64]:
        gain = 1 if activation == OUTPUT_ACTIVATION else ACTIVATIONS[activation].gain
        return rng.normal(0, np.sqrt(gain / fan_in), (fan_in, fan_out))

    return _network(layer_sizes, activation, weights)


def _network(
    layer_sizes: Sequence[int],
    activation: str,
    weights: Callable[[int, int, str], np.typing.NDArray[np.float64]],
) -> Network:
    hidden = len(layer_sizes) - 2
    activations = [activation] * hidden + [OUTPUT_ACTIVATION]
    widths = zip(layer_sizes[:-1], layer_sizes[1:], activations, strict=True)
    return Network(
        tuple(
            Layer(weights(fan_in, fan_out, activation), np.zeros(fan_out), activation)
            for fan_in, fan_out, activation in widths
        )
    )


INITIALIZATIONS: Final[Mapping[str, Callable[[Sequence[int], str, int], Network]]] = {
    "tutorial": tutorial,
    "he": he,
}
