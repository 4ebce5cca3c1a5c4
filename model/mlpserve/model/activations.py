"""The activations: one table that the network, the trainer and the exports read.

A new activation of hidden layers is one line of ``ACTIVATIONS`` and its two functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]

_SHORT_ROW: Final = 32


class ActivationFunction(Protocol):
    """A function f of the weighted sums of a layer. It never overflows, whatever finite sums."""

    def __call__(self, sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """Return the outputs for (N, width) sums, in their shape and dtype.

        Args:
            sums: Of any float dtype.
            out: What to write the outputs into, which may be the sums themselves; None for a new
                array.
        """


@dataclass(frozen=True)
class Activation:
    """An activation of hidden layers: all that any part of the code knows of it.

    Attributes:
        function: f.
        backward: Takes (N, width) deltas, the derivatives of the loss with respect to the outputs
            ``f(z)``, and these outputs, and multiplies the deltas by ``f'(z)`` in place. It may
            overwrite the outputs as well.
        is_bounded: Whether ``|f(z)| <= 1`` for all z; if not, ``|f(z)| <= |z|``. The proof that no
            input makes a network overflow rests on it, see ``network.largest_sums``.
        gain: The variance that a layer's first weights have, times its fan_in, so that signals keep
            their size; see the trainer's initializations.
        onnx_operator: The operator of ONNX, which has f with its default attributes.
    """

    function: ActivationFunction
    backward: Callable[[FloatArray, FloatArray], None]
    is_bounded: bool
    gain: float
    onnx_operator: str


def tanh(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Return the hyperbolic tangent, from -1 to 1."""
    return np.tanh(sums, out=out)


def tanh_backward(deltas: FloatArray, outputs: FloatArray) -> None:
    """Multiply by d tanh(z) / dz = 1 - tanh(z)^2."""
    np.multiply(outputs, outputs, out=outputs)
    np.subtract(1, outputs, out=outputs)
    deltas *= outputs


def relu(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Return the sums, with 0 in place of the negative ones."""
    return np.maximum(sums, 0, out=out)


def relu_backward(deltas: FloatArray, outputs: FloatArray) -> None:
    """Multiply by 1 where z > 0 and 0 elsewhere; at 0, where there is no derivative, by 0."""
    deltas *= outputs > 0


def sigmoid(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Return the logistic function 1 / (1 + exp(-x)), from 0 to 1."""
    # 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, and tanh has no exp that could overflow.
    outputs: FloatArray = np.divide(sums, 2, out=out)
    np.tanh(outputs, out=outputs)
    outputs += 1
    outputs /= 2
    return outputs


def sigmoid_backward(deltas: FloatArray, outputs: FloatArray) -> None:
    """Multiply by d s(z) / dz = s(z) (1 - s(z)), one factor after the other."""
    deltas *= outputs
    np.subtract(1, outputs, out=outputs)
    deltas *= outputs


def softmax(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Return exp(x) / sum(exp(x)) of each row: values from 0 to 1 that sum to 1."""
    # A constant that is subtracted from all of a row cancels out. With the row's own maximum no
    # exponent is above 0, and at least one is 0: neither overflow nor a division by 0.
    with np.errstate(over="ignore"):  # a difference beyond the dtype is -inf, and exp(-inf) is 0
        exponentials: FloatArray = np.subtract(sums, _of_rows(np.maximum, sums), out=out)
    np.exp(exponentials, out=exponentials)
    exponentials /= _of_rows(np.add, exponentials)
    return exponentials


def _of_rows(function: np.ufunc, values: FloatArray) -> FloatArray:
    """Return, as (N, 1), the sums or the largest of rows.

    NumPy takes short rows one by one; the other way round it takes all of them at once.
    """
    if values.shape[1] > _SHORT_ROW:
        return np.asarray(function.reduce(values, axis=1, keepdims=True))
    return np.asarray(function.reduce(np.ascontiguousarray(values.T), axis=0))[:, np.newaxis]


ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "tanh": Activation(tanh, tanh_backward, is_bounded=True, gain=1, onnx_operator="Tanh"),
    "relu": Activation(relu, relu_backward, is_bounded=False, gain=2, onnx_operator="Relu"),
    "sigmoid": Activation(
        sigmoid, sigmoid_backward, is_bounded=True, gain=1, onnx_operator="Sigmoid"
    ),
}
# Of the last layer, and of no other. The trainer takes its derivative together with the loss's.
OUTPUT_ACTIVATION: Final = "softmax"
