"""The activations that a layer may have.

Each takes the (N, width) weighted sums of a layer, of any float dtype, and returns an array of the
same shape and dtype: a new one, or ``out``, which may be the sums themselves. None overflows,
whatever finite sums it is given.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]

_SHORT_ROW: Final = 32


class Activation(Protocol):
    """A function of weighted sums; see above."""

    def __call__(self, sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """Return the outputs for the sums."""


def tanh(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Return the hyperbolic tangent, from -1 to 1."""
    return np.tanh(sums, out=out)


def relu(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Return the sums, with 0 in place of the negative ones."""
    return np.maximum(sums, 0, out=out)


def sigmoid(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Return the logistic function 1 / (1 + exp(-x)), from 0 to 1."""
    # 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, and tanh has no exp that could overflow.
    outputs: FloatArray = np.divide(sums, 2, out=out)
    np.tanh(outputs, out=outputs)
    outputs += 1
    outputs /= 2
    return outputs


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


HIDDEN_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "tanh": tanh,
    "relu": relu,
    "sigmoid": sigmoid,
}
OUTPUT_ACTIVATION: Final = "softmax"
ACTIVATIONS: Final[Mapping[str, Activation]] = {**HIDDEN_ACTIVATIONS, OUTPUT_ACTIVATION: softmax}
