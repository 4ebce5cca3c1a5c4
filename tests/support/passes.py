"""One batch through the trainer's backpropagation, from arrays."""

import numpy as np

from mlpserve.model.activations import FloatArray
from mlpserve.model.network import Network
from mlpserve.trainer.learning.backprop import Backpropagation, Batch, Labels


def batch_of(inputs: FloatArray, labels: Labels) -> Batch:
    """Return a batch of (N, D) inputs and their (N,) classes."""

    def fill(rows: slice, out: FloatArray) -> None:
        out[:] = inputs[rows]

    return Batch(labels, fill)


def loss_and_gradients(
    network: Network,
    inputs: FloatArray,
    labels: Labels,
    *,
    label_smoothing: float = 0.0,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[float, list[FloatArray]]:
    """Return the mean loss, and its derivative with respect to each of ``network.parameters``."""
    backpropagation = Backpropagation(
        network, max_rows=len(labels), label_smoothing=label_smoothing, dropout=dropout
    )
    rows = slice(0, len(labels))
    result = backpropagation.run(batch_of(inputs, labels), rows, rng=rng)
    return result.loss, backpropagation.gradients
