"""The network: a chain of affine maps, each followed by an activation.

    images -> affine -> tanh | relu | ... -> affine -> tanh | relu | ... -> affine -> softmax

Only the forward pass is here; the backward pass is the trainer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlpserve.model.activations import ACTIVATIONS, OUTPUT_ACTIVATION, FloatArray, softmax
from mlpserve.model.errors import NetworkError


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: ``activation(inputs @ weights + bias)``.

    Attributes:
        weights: (fan_in, fan_out).
        bias: (fan_out,), of the dtype of the weights.
        activation: A key of ``ACTIVATIONS``, or ``OUTPUT_ACTIVATION``.
    """

    weights: FloatArray
    bias: FloatArray
    activation: str

    @property
    def is_bounded(self) -> bool:
        """Return whether no output is above 1 in magnitude, whatever the weights."""
        return self.activation == OUTPUT_ACTIVATION or ACTIVATIONS[self.activation].is_bounded

    def unscaled(self, offset: float, divisor: float) -> "Layer":
        """Return a layer that gives for x what this one gives for ``(x - offset) / divisor``.

            (x - o) / d @ W + b = x @ (W / d) + (b - o / d sum_i W_i)

        So weights are divided once, and not each image.
        """
        if divisor == 1 and not offset:
            return self
        weights = self.weights / self.weights.dtype.type(divisor)
        if not offset:
            return Layer(weights, self.bias, self.activation)
        shift = (offset / divisor) * self.weights.sum(axis=0, dtype=np.float64)
        bias = (self.bias - shift).astype(self.bias.dtype)
        return Layer(weights, bias, self.activation)

    def forward(self, inputs: FloatArray) -> FloatArray:
        """Return the (N, fan_out) outputs for (N, fan_in) inputs."""
        sums = inputs @ self.weights
        sums += self.bias
        return self.activate(sums)

    def activate(self, sums: FloatArray) -> FloatArray:
        """Replace the (N, fan_out) weighted sums by the outputs, in place, and return them."""
        if self.activation == OUTPUT_ACTIVATION:
            return softmax(sums, out=sums)
        return ACTIVATIONS[self.activation].function(sums, out=sums)


@dataclass(frozen=True, eq=False)
class Network:
    """The layers of a network, first to last; checked when it is made.

    Raises:
        NetworkError: There is no layer, two neighbours do not fit, a bias does not fit its
            weights, or an activation stands where it may not.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise NetworkError("layers: expected at least 1, got 0")
        for number, layer in enumerate(self.layers, start=1):
            _check_shapes(number, layer)
            _check_activation(number, layer.activation, is_last=number == len(self.layers))
        for number in range(1, len(self.layers)):
            width, fan_in = self.layer_sizes[number], len(self.layers[number].weights)
            if width != fan_in:
                raise NetworkError(
                    f"W{number + 1}: expected {width} rows, the width of layer {number}, "
                    f"got {fan_in}"
                )

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Return the width of each layer, the input first."""
        widths = (layer.weights.shape[1] for layer in self.layers)
        return (self.layers[0].weights.shape[0], *widths)

    @property
    def activations(self) -> tuple[str, ...]:
        """Return the activation of each layer but the input."""
        return tuple(layer.activation for layer in self.layers)

    @property
    def parameters(self) -> list[FloatArray]:
        """Return the weights and the bias of each layer in turn; the arrays themselves."""
        return [array for layer in self.layers for array in (layer.weights, layer.bias)]

    def with_parameters(self, parameters: Sequence[FloatArray]) -> "Network":
        """Return a network of these activations with other ``parameters``, in their order."""
        pairs = zip(parameters[::2], parameters[1::2], strict=True)
        return Network(
            tuple(
                Layer(weights, bias, activation)
                for (weights, bias), activation in zip(pairs, self.activations, strict=True)
            )
        )

    def astype(self, dtype: type[np.floating]) -> "Network":
        """Return the network with its parameters in another dtype."""
        return self.with_parameters([array.astype(dtype) for array in self.parameters])

    def probabilities(self, inputs: FloatArray) -> FloatArray:
        """Return the (N, K) probabilities of the classes; each row sums to 1.

        Args:
            inputs: (N, fan_in of the first layer) values in [0, 1], of the parameters' dtype.
        """
        for layer in self.layers:
            inputs = layer.forward(inputs)
        return inputs


def largest_sums(network: Network) -> list[float]:
    """Return how large the weighted sums of each layer can get, in magnitude, for inputs in [0, 1].

    ``|sum_j| <= sum_i |input_i| |W_ij| + |b_j|``, and a layer's outputs are at most 1 in magnitude
    where its activation is bounded, and at most its sums where it is not. Where all of these are
    finite in the network's dtype, no input makes it overflow, and so none makes it answer NaN.
    """
    limits = np.ones(network.layer_sizes[0])  # of the magnitude of the layer's inputs
    largest: list[float] = []
    for layer in network.layers:
        with np.errstate(over="ignore", invalid="ignore"):
            weights = np.abs(layer.weights.astype(np.float64))
            sums = limits @ weights + np.abs(layer.bias.astype(np.float64))
        largest.append(float(sums.max()))
        limits = np.ones_like(sums) if layer.is_bounded else sums
    return largest


def _check_shapes(number: int, layer: Layer) -> None:
    if layer.weights.ndim != 2 or 0 in layer.weights.shape:  # noqa: PLR2004 - a matrix
        raise NetworkError(
            f"W{number}: expected (fan_in, fan_out), each at least 1, got {layer.weights.shape}"
        )
    fan_out = layer.weights.shape[1]
    if layer.bias.shape != (fan_out,):
        raise NetworkError(
            f"b{number}: expected shape ({fan_out},), one a column of W{number}, "
            f"got {layer.bias.shape}"
        )


def _check_activation(number: int, activation: str, *, is_last: bool) -> None:
    allowed = (OUTPUT_ACTIVATION,) if is_last else tuple(ACTIVATIONS)
    if activation not in allowed:
        raise NetworkError(
            f"activation of layer {number}: expected {' or '.join(allowed)}, got {activation!r}"
        )
