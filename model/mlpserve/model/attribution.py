"""Attribution: how much each value of an image spoke for a class, or against it.

Notation, as in the trainer's backpropagation: layer i computes ``Z_i = A_(i-1) @ W_i + b_i`` and
``A_i = f_i(Z_i)``; ``A_0 = X`` are the inputs. The logit of class c is column c of ``Z_L``: what
softmax makes the probability of. ``D_i`` is the derivative of the logit with respect to ``Z_i``.

Gradient. ``Z_L`` is linear in ``A_(L-1)``, so the derivative of the logit of class c with respect
to ``A_(L-1)`` is column c of ``W_L``, and by the chain rule, from the last layer to the first:

    D_L = one-hot(c)      D_i = (D_(i+1) @ W_(i+1).T) * f_i'(Z_i)      dX = D_1 @ W_1.T

Gradient times input, ``(X - B) * dX``: to first order, what the logit would lose if a value were
that of a baseline B, an image that shows nothing.
Source: Shrikumar et al., Not Just a Black Box (2016).

Integrated gradients. The gradient says nothing where a unit is saturated, so it is averaged along
the straight line from B to X:

    (X - B) * integral over a from 0 to 1 of dX(B + a (X - B))

The sum over an image is what X changed in the logit, ``z_c(X) - z_c(B)``: no part of it is left
unexplained, or explained twice (completeness). The integral is the mean of m gradients at the
middles of m equal steps.
Source: Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks (2017).

The first layer, mostly the largest, is passed twice and not 2 m times. On the line its sums are

    Z_1(a) = Z_1(B) + a (Z_1(X) - Z_1(B))

and the mean of the ``D_1 @ W_1.T`` is the mean of the ``D_1``, times ``W_1.T``.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import ACTIVATIONS, FloatArray
from mlpserve.model.network import Network

DEFAULT_STEPS: Final = 20
# So many rows of the layers after the first keep the arrays in the processor's cache; of very wide
# layers, so many values.
_CHUNK_ROWS: Final = 1024
_CHUNK_VALUES: Final = 2**20


def logits(network: Network, inputs: FloatArray) -> FloatArray:
    """Return the (N, K) logits of the classes: the last layer's sums, before softmax.

    Args:
        network: The network.
        inputs: (N, D) values, of the parameters' dtype.
    """
    *hidden, last = network.layers
    for layer in hidden:
        inputs = layer.forward(inputs)
    sums: FloatArray = inputs @ last.weights
    sums += last.bias
    return sums


def gradients(
    network: Network, inputs: FloatArray, classes: npt.NDArray[np.integer[Any]]
) -> FloatArray:
    """Return the (N, D) derivatives of the logits of some classes with respect to the inputs.

    Args:
        network: The network.
        inputs: (N, D) values, of the parameters' dtype.
        classes: (N,) one class for each image, from 0 to K - 1.
    """
    first = network.layers[0]
    derivatives = np.empty_like(inputs)
    rows_at_once = _rows_at_once(network)
    for start in range(0, len(inputs), rows_at_once):
        rows = slice(start, start + rows_at_once)
        sums = inputs[rows] @ first.weights
        sums += first.bias
        delta = _first_layer_delta(network, sums, classes[rows])
        np.matmul(delta, first.weights.T, out=derivatives[rows])
    return derivatives


def gradient_times_input(
    network: Network,
    inputs: FloatArray,
    classes: npt.NDArray[np.integer[Any]],
    *,
    baseline: float = 0.0,
) -> FloatArray:
    """Return the (N, D) products of gradients and of inputs above a baseline.

    Args:
        network: The network.
        inputs: (N, D) values, of the parameters' dtype.
        classes: (N,) one class for each image, from 0 to K - 1.
        baseline: The value of all pixels of the image that shows nothing: 0 is black.
    """
    attributions = gradients(network, inputs, classes)
    attributions *= inputs - inputs.dtype.type(baseline)
    return attributions


def integrated_gradients(
    network: Network,
    inputs: FloatArray,
    classes: npt.NDArray[np.integer[Any]],
    *,
    steps: int = DEFAULT_STEPS,
    baseline: float = 0.0,
) -> FloatArray:
    """Return the (N, D) integrated gradients of the logits of some classes.

    Args:
        network: The network.
        inputs: (N, D) values, of the parameters' dtype.
        classes: (N,) one class for each image, from 0 to K - 1.
        steps: m above, at least 1; of more, the sums differ less from what they are to be.
        baseline: As for ``gradient_times_input``.
    """
    first = network.layers[0]
    dtype = inputs.dtype
    middles = ((np.arange(steps) + 0.5) / steps).astype(dtype)[:, np.newaxis]
    of_baseline = first.weights.sum(axis=0) * dtype.type(baseline) + first.bias
    attributions = np.empty_like(inputs)
    rows_at_once = max(1, _rows_at_once(network) // steps)
    for start in range(0, len(inputs), rows_at_once):
        rows = slice(start, start + rows_at_once)
        differences = inputs[rows] - dtype.type(baseline)
        changes = differences @ first.weights  # (R, H), Z_1(X) - Z_1(B)
        sums = middles * changes[:, np.newaxis]  # (R, m, H)
        sums += of_baseline
        delta = _first_layer_delta(
            network, sums.reshape(-1, sums.shape[-1]), np.repeat(classes[rows], steps)
        )
        mean = delta.reshape(sums.shape).mean(axis=1)
        np.matmul(mean, first.weights.T, out=attributions[rows])
        attributions[rows] *= differences
    return attributions


def explanations(
    network: Network,
    inputs: FloatArray,
    classes: npt.NDArray[np.integer[Any]],
    *,
    steps: int,
    baseline: float,
    rows_at_once: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return attributions, and what they are to sum to.

    Args:
        network: As for ``integrated_gradients``.
        inputs: As there.
        classes: As there.
        steps: As there; 0 for ``gradient_times_input``.
        baseline: As there.
        rows_at_once: So many images are computed together, which their last bits depend on.

    Returns:
        (N, D) attributions; (N,) the logits of the classes; and (N,) those of the baseline.
    """
    attributions, of_images = np.empty_like(inputs), np.empty_like(inputs, shape=len(inputs))
    with np.errstate(over="ignore", invalid="ignore"):  # of weights near the end of the dtype
        for start in range(0, len(inputs), rows_at_once):
            rows = slice(start, start + rows_at_once)
            block, chosen = inputs[rows], classes[rows]
            of_images[rows] = logits(network, block)[np.arange(len(block)), chosen]
            attributions[rows] = (
                integrated_gradients(network, block, chosen, steps=steps, baseline=baseline)
                if steps
                else gradient_times_input(network, block, chosen, baseline=baseline)
            )
        of_baseline = logits(network, np.full_like(inputs[:1], baseline))[0]
    return attributions, of_images, of_baseline[classes]


def _rows_at_once(network: Network) -> int:
    return max(1, min(_CHUNK_ROWS, _CHUNK_VALUES // max(network.layer_sizes[1:])))


def _first_layer_delta(
    network: Network, sums: FloatArray, classes: npt.NDArray[np.integer[Any]]
) -> FloatArray:
    """Return the (N, H) derivatives of the logits with respect to the first layer's sums.

    Args:
        network: The network.
        sums: (N, H) sums of the first layer, which are written over.
        classes: (N,) classes.
    """
    *hidden, last = network.layers
    if not hidden:
        one_hot: FloatArray = np.eye(network.layer_sizes[-1], dtype=sums.dtype)[classes]
        return one_hot
    outputs = [hidden[0].activate(sums)]
    for layer in hidden[1:]:
        outputs.append(layer.forward(outputs[-1]))
    delta: FloatArray = last.weights.T[classes]
    for index in reversed(range(len(hidden))):
        ACTIVATIONS[hidden[index].activation].backward(delta, outputs[index])
        if index > 0:
            delta = delta @ hidden[index].weights.T
    return delta
