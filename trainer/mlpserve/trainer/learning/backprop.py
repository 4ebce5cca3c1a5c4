"""The backward pass: how the loss changes with each parameter.

Notation, for a batch of N rows: layer i computes ``Z_i = A_(i-1) @ W_i + b_i`` and
``A_i = f_i(Z_i)``; ``A_0`` are the inputs, ``A_L = P`` the probabilities, ``Y`` the one-hot true
classes. The loss is the mean cross-entropy ``-sum(Y * log(P)) / N``, and ``D_i`` is its derivative
with respect to ``Z_i``.

Output layer. For one row, ``p_j = exp(z_j) / sum_k exp(z_k)``, so with c the true class
``log p_c = z_c - log sum_k exp(z_k)`` and ``d(-log p_c) / d z_j = p_j - [j = c]``. For the batch:

    D_L = (P - Y) / N

Parameters. ``Z_i`` is linear in both, each row adds its share:

    dW_i = A_(i-1).T @ D_i        db_i = sum of the rows of D_i

Hidden layers. By the chain rule through ``Z_(i+1) = A_i @ W_(i+1) + b_(i+1)``:

    D_i = (D_(i+1) @ W_(i+1).T) * f_i'(Z_i)

The derivatives ``f'`` are written in terms of ``A = f(Z)``, which the forward pass keeps.
Source: Goodfellow, Bengio, Courville, Deep Learning (2016), section 6.5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import FloatArray
from mlpserve.model.network import Network

Labels = npt.NDArray[np.int64]

# Added to a probability before its logarithm, so that a loss stays finite; the tutorial's value.
LOG_OFFSET: Final = 1e-8
# So many rows at a time keep the arrays of a pass in the processor's cache.
_CHUNK_ROWS: Final = 1000


def _tanh_derivative(outputs: FloatArray) -> FloatArray:
    """Return d tanh(z) / dz = 1 - tanh(z)^2."""
    return 1 - outputs * outputs


def _relu_derivative(outputs: FloatArray) -> FloatArray:
    """Return 1 where z > 0 and 0 elsewhere; at 0 itself, where there is none, 0 as is usual."""
    return (outputs > 0).astype(outputs.dtype)


def _sigmoid_derivative(outputs: FloatArray) -> FloatArray:
    """Return d s(z) / dz = s(z) (1 - s(z))."""
    return outputs * (1 - outputs)


DERIVATIVES: Final[Mapping[str, Callable[[FloatArray], FloatArray]]] = {
    "tanh": _tanh_derivative,
    "relu": _relu_derivative,
    "sigmoid": _sigmoid_derivative,
}


@dataclass(frozen=True, eq=False)
class BatchResult:
    """What one pass over a batch found, all before any update.

    Attributes:
        loss: The mean cross-entropy, in nats.
        correct: How many of the rows were classified rightly.
        gradients: The derivative of the loss with respect to each of ``Network.parameters``, in
            their order and shapes.
    """

    loss: float
    correct: int
    gradients: list[FloatArray]


def loss_and_gradients(network: Network, inputs: FloatArray, labels: Labels) -> BatchResult:
    """Run a batch forward and backward.

    Args:
        network: The network; its parameters and ``inputs`` are of one dtype, which is kept.
        inputs: (N, D) values in [0, 1], N at least 1.
        labels: (N,) true classes, each from 0 to K - 1.
    """
    loss, correct = 0.0, 0
    gradients: list[FloatArray] = [np.zeros_like(array) for array in network.parameters]
    for start in range(0, len(inputs), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        share = _share_of_batch(network, inputs[rows], labels[rows], batch_size=len(inputs))
        loss += share.loss
        correct += share.correct
        for gradient, part in zip(gradients, share.gradients, strict=True):
            gradient += part
    return BatchResult(loss, correct, gradients)


def _share_of_batch(
    network: Network, inputs: FloatArray, labels: Labels, *, batch_size: int
) -> BatchResult:
    """Return what some rows of a batch add to its loss, its correct ones and its gradients."""
    outputs = network.forward(inputs)
    probabilities = outputs[-1]
    rows = np.arange(len(labels))
    loss = -np.log(probabilities[rows, labels] + LOG_OFFSET).sum() / batch_size
    correct = np.count_nonzero(probabilities.argmax(axis=1) == labels)

    delta = probabilities.copy()  # D_L
    delta[rows, labels] -= 1
    delta /= batch_size

    gradients: list[FloatArray] = []
    for index in reversed(range(len(network.layers))):
        gradients += [delta.sum(axis=0), outputs[index].T @ delta]
        if index > 0:  # nothing learns from the derivative with respect to the images
            derivative = DERIVATIVES[network.layers[index - 1].activation](outputs[index])
            delta = (delta @ network.layers[index].weights.T) * derivative
    gradients.reverse()
    return BatchResult(float(loss), int(correct), gradients)
