"""Backpropagation: the derivative of the loss with respect to each parameter, fast.

The same in the plainest form is ``plain``; this pass does what that one does, in arrays that are
allocated once, some rows at a time, with what is explained below beside it.

Notation, for a batch of N rows: layer i computes ``Z_i = A_(i-1) @ W_i + b_i`` and
``A_i = f_i(Z_i)``; ``A_0`` are the inputs, ``A_L = P`` the probabilities, ``Y`` the one-hot true
classes of K. The loss is the mean cross-entropy ``-sum(T * log(P)) / N`` with the targets
``T = (1 - s) Y + s / K``, where s is the label smoothing, mostly 0; ``D_i`` is its derivative with
respect to ``Z_i``.

Output layer. For one row, ``p_j = exp(z_j) / sum_k exp(z_k)``, so
``log p_c = z_c - log sum_k exp(z_k)`` and ``d(log p_c) / d z_j = [j = c] - p_j``. With targets that
sum to 1, ``d(-sum_c t_c log p_c) / d z_j = p_j - t_j``. For the batch:

    D_L = (P - T) / N

Parameters. ``Z_i`` is linear in both, each row adds its share:

    dW_i = A_(i-1).T @ D_i        db_i = sum of the rows of D_i

Hidden layers. By the chain rule through ``Z_(i+1) = A_i @ W_(i+1) + b_(i+1)``:

    D_i = (D_(i+1) @ W_(i+1).T) * f_i'(Z_i)

The derivatives ``f'`` are written in terms of ``A = f(Z)``, which the forward pass keeps.
Source: Goodfellow, Bengio, Courville, Deep Learning (2016), section 6.5.

Dropout. Each hidden output is multiplied by m, which is 0 with probability q and else 1 / (1 - q),
so that its mean stays what it is without. The next layer sees ``A_i * m``, so ``D_i`` gets the
factor m as well. Source: Srivastava et al., Dropout (2014), in the form that leaves prediction as
it is.

Selection. A row whose true class has almost all of the probability adds almost nothing to the
gradient: of its ``D_L`` all elements are near 0, where s is 0. Leaving such rows out of the
backward pass changes the gradient little and its cost a lot, late in a training. They still count
as rows of the batch.
Source: Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers (2019), where
rows are left out at random by their loss; here, by a limit.

Zero columns. An input that is 0 in all rows adds nothing to ``Z_1``, and the derivative of its
weights, ``sum_n A_0[n, i] D_1[n, :]``, is 0. So the first layer, mostly the largest, is computed
with the nonzero columns of ``A_0`` only, if whoever fills them says which these are: of a batch of
MNIST a third of the pixels is 0 in all images.

Distillation. Teachers change D_L; see ``distillation``. They are asked about the rows that go
backward only, for asking costs a forward pass of each. The loss that is reported stays that of T.

Label smoothing: Szegedy et al., Rethinking the Inception Architecture (2016), section 7.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import ACTIVATIONS, FloatArray
from mlpserve.model.network import Layer, Network
from mlpserve.trainer.learning.distillation import Distillation
from mlpserve.trainer.learning.parameters import Vector, aligned, views

Labels: TypeAlias = npt.NDArray[np.int64]
Columns: TypeAlias = npt.NDArray[np.intp]
# Writes the inputs of some rows of a batch into a (rows, D) array, and returns None; or writes only
# the nonzero columns, side by side into the first columns of the array, and returns which these
# are, in rising order. Many threads may call it at once, each for rows of its own.
FillInputs: TypeAlias = Callable[[slice, FloatArray], Columns | None]

# Added to a probability before its logarithm, so that a loss stays finite; the tutorial's value.
# The derivatives take no logarithm and do without.
LOG_OFFSET: Final = 1e-8
# So many rows at a time keep the arrays of a pass in the processor's cache.
CHUNK_ROWS: Final = 1000
# Where more rows are kept, moving them together costs more than the others would.
MAX_KEPT_SHARE: Final = 0.8


@dataclass(frozen=True, eq=False)
class Batch:
    """The images of one step, and their classes.

    Attributes:
        labels: (N,) true classes, each from 0 to K - 1.
        fill: Writes the inputs of some of the N rows into an array.
        take_sparse: Returns them without their zeros instead, as a ``sparse.SparseMatrix`` of a
            dtype; None where there are too few zeros, or the engine has no use for it.
    """

    labels: Labels
    fill: FillInputs
    take_sparse: Callable[[slice, np.dtype[Any]], Any] | None = None


@dataclass(frozen=True)
class BatchResult:
    """The loss and the hits of a batch, or of some rows of it, before it is learned from.

    Attributes:
        loss: What the rows add to the mean loss of the batch, in nats.
        correct: How many of the rows were classified rightly.
    """

    loss: float
    correct: int


class Backpropagation:
    """Passes batches through one network, forward and backward, in arrays allocated once.

    For one thread: several that share a batch have one each, over the same network.

    Attributes:
        gradient: (P,) the derivative of the loss with respect to each parameter, as the last call
            of ``run`` left it.
        gradients: Views of it, in the order and shapes of the network's parameters.
    """

    def __init__(
        self,
        network: Network,
        *,
        max_rows: int,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        learned_probability: float = 1.0,
        distillation: Distillation | None = None,
    ) -> None:
        """Allocate for batches, or shards of them, of up to ``max_rows``.

        Args:
            network: The network; its parameters may change between two runs.
            max_rows: The most rows of one run.
            label_smoothing: s above, from 0 to below 1.
            dropout: q above, from 0 to below 1.
            learned_probability: Rows whose true class has at least this probability are left out of
                the backward pass, where they are enough for that to pay; 1 for none.
            distillation: From whom to learn as well; None for from labels alone.
        """
        self._network = network
        self._label_smoothing = label_smoothing
        self._dropout = dropout
        self._learned_probability = learned_probability
        self._distillation = distillation
        dtype = network.parameters[0].dtype
        rows = min(max_rows, CHUNK_ROWS)
        widths = network.layer_sizes
        self._outputs = [aligned((rows, width), dtype) for width in widths]  # A_0 ... A_L
        self._deltas = [aligned((rows, width), dtype) for width in widths[1:-1]]  # D_1 ... D_(L-1)
        # What the next layer sees, m, and A * m; A itself where nothing is dropped.
        self._masks = [np.empty_like(delta) for delta in self._deltas] if dropout else []
        self._dropped = [np.empty_like(delta) for delta in self._deltas] if dropout else []
        # P, before D_L takes its place.
        self._probabilities = [np.empty_like(self._outputs[-1])] if distillation else []
        self._ones = np.ones(rows, dtype)
        self._row_starts = np.arange(rows) * widths[-1]  # of the flattened P
        first_weights = network.layers[0].weights
        self._columns: Columns | None = None  # of A_0, that are filled; None for all
        self._column_weights = np.empty_like(first_weights)  # the rows of W_1 that belong to them
        self._column_gradient = np.empty_like(first_weights)
        self.gradient: Vector = aligned((sum(map(np.size, network.parameters)),), dtype)
        self.gradients = views(self.gradient, network)
        self._more = [np.empty_like(array) for array in self.gradients]  # of the second chunk on

    # BLAS may claim an invalid value where there is none, of memory beside its operands. A loss
    # that is not finite is found by those who have a word for it.
    @np.errstate(over="ignore", invalid="ignore")
    def run(
        self, batch: Batch, rows: slice, *, rng: np.random.Generator | None = None
    ) -> BatchResult:
        """Run some rows of a batch; afterwards ``gradient`` holds what they add to the batch's.

        Args:
            batch: The whole batch.
            rows: Which rows of it: from ``start`` to before ``stop``.
            rng: What dropout draws from; needed only with dropout.

        Raises:
            ValueError: There is dropout, and no ``rng``.
        """
        if self._dropout and rng is None:
            raise ValueError("rng: dropout draws from a generator, got None")
        loss, correct = 0.0, 0
        if rows.start == rows.stop:  # of a last short batch, a thread may get nothing
            self.gradient[:] = 0
        for start in range(rows.start, rows.stop, len(self._ones)):
            chunk = slice(start, min(start + len(self._ones), rows.stop))
            labels, count = batch.labels[chunk], chunk.stop - start
            self._fill(batch, chunk)
            self._forward(count, rng)
            for probabilities in self._probabilities:
                probabilities[:count] = self._outputs[-1][:count]
            result = self._output_delta(labels, len(batch.labels))
            kept = self._keep_unlearned(labels, len(batch.labels))
            if self._distillation is not None:
                self._distil(self._distillation, kept, len(batch.labels))
            self._backward(kept, adding=start > rows.start)
            loss += result.loss
            correct += result.correct
        return BatchResult(loss, correct)

    def _fill(self, batch: Batch, rows: slice) -> None:
        """Write A_0 of some rows of a batch."""
        self._columns = batch.fill(rows, self._outputs[0][: rows.stop - rows.start])

    def _forward(self, count: int, rng: np.random.Generator | None) -> None:
        """Compute A_1 ... A_L of the first ``count`` rows from A_0."""
        for index, layer in enumerate(self._network.layers):
            sums = self._outputs[index + 1][:count]
            self._multiply(index, sums)
            self._activate(layer, sums)
            if rng is not None and index < len(self._masks):
                self._drop(index, count, rng)

    def _multiply(self, index: int, out: FloatArray) -> None:
        """Compute ``A @ W`` of layer ``index``."""
        np.matmul(self._inputs(index, len(out)), self._weights(index), out=out)

    def _activate(self, layer: Layer, sums: FloatArray) -> None:
        """Turn ``A @ W`` of a layer into its outputs, in place."""
        sums += layer.bias
        layer.activate(sums)

    def _inputs(self, index: int, count: int) -> FloatArray:
        """Return what layer ``index`` sees: the outputs before it, of which some may be dropped."""
        if index == 0:
            width = None if self._columns is None else len(self._columns)
            return self._outputs[0][:count, :width]
        seen = self._dropped[index - 1] if self._dropout else self._outputs[index]
        return seen[:count]

    def _weights(self, index: int) -> FloatArray:
        """Return the weights that belong to ``_inputs``."""
        weights = self._network.layers[index].weights
        if index > 0 or self._columns is None:
            return weights
        column_weights = self._column_weights[: len(self._columns)]
        return np.take(weights, self._columns, axis=0, out=column_weights, mode="clip")

    def _drop(self, index: int, count: int, rng: np.random.Generator) -> None:
        mask = self._masks[index][:count]
        # Of float32 numbers even where all else is float64: it is compared once, and thrown away.
        np.greater_equal(rng.random(mask.shape, np.float32), self._dropout, out=mask)
        mask *= 1 / (1 - self._dropout)
        np.multiply(self._outputs[index + 1][:count], mask, out=self._dropped[index][:count])

    def _output_delta(self, labels: Labels, batch_size: int) -> BatchResult:
        """Turn P into D_L, in its place; return the loss and the hits of the rows."""
        delta = self._outputs[-1][: len(labels)]
        flat, of_truth = delta.reshape(-1), self._row_starts[: len(labels)] + labels
        correct = np.count_nonzero(delta.argmax(axis=1) == labels)
        logarithms = np.log(flat.take(of_truth) + LOG_OFFSET)
        loss = -(1 - self._label_smoothing) * logarithms.sum()
        if self._label_smoothing:
            evenly = self._label_smoothing / delta.shape[1]
            loss -= evenly * np.log(delta + LOG_OFFSET).sum()
            delta -= evenly
        flat[of_truth] -= 1 - self._label_smoothing
        delta *= 1 / batch_size
        return BatchResult(float(loss) / batch_size, int(correct))

    def _keep_unlearned(self, labels: Labels, batch_size: int) -> int:
        """Move the rows that are still to be learned to the front; return how many there are."""
        if self._learned_probability == 1:
            return len(labels)
        # D_L of the true class is (p - t) / N.
        target = 1 - self._label_smoothing * (1 - 1 / self._outputs[-1].shape[1])
        of_truth = self._row_starts[: len(labels)] + labels
        off = self._outputs[-1].reshape(-1).take(of_truth) * batch_size
        kept = np.flatnonzero(off < self._learned_probability - target)
        if len(kept) > MAX_KEPT_SHARE * len(labels):
            return len(labels)
        self._keep(kept)
        return len(kept)

    def _keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Move some rows to the front."""
        for array in (*self._outputs, *self._masks, *self._dropped, *self._probabilities):
            array[: len(rows)] = array[rows]

    def _distil(self, distillation: Distillation, count: int, batch_size: int) -> None:
        """Let the teachers change D_L of the first ``count`` rows."""
        delta, (probabilities,) = self._outputs[-1][:count], self._probabilities
        inputs = self._dense_inputs(count)
        distillation.change(delta, probabilities[:count], inputs, batch_size)

    def _dense_inputs(self, count: int) -> FloatArray:
        """Return A_0 of the first ``count`` rows with all its columns."""
        inputs = self._inputs(0, count)
        if self._columns is None:
            return inputs
        dense = np.zeros_like(self._outputs[0][:count])
        dense[:, self._columns] = inputs
        return dense

    def _backward(self, count: int, *, adding: bool) -> None:
        """Compute D_(L-1) ... D_1 from D_L, and the gradients or what is to be added to them."""
        gradients = self._more if adding else self.gradients
        delta = self._outputs[-1][:count]
        for index in reversed(range(len(self._network.layers))):
            self._weights_gradient(index, delta, out=gradients[2 * index])
            np.matmul(self._ones[:count], delta, out=gradients[2 * index + 1])
            if index > 0:  # nothing learns from the derivative with respect to the images
                delta = self._delta_before(index, delta)
        if adding:
            for gradient, more in zip(self.gradients, self._more, strict=True):
                gradient += more

    def _weights_gradient(self, index: int, delta: FloatArray, out: FloatArray) -> None:
        inputs = self._inputs(index, len(delta))
        if index > 0 or self._columns is None:
            np.matmul(inputs.T, delta, out=out)
            return
        column_gradient = self._column_gradient[: len(self._columns)]
        np.matmul(inputs.T, delta, out=column_gradient)
        self._spread(column_gradient, self._columns, out)

    def _spread(self, rows: FloatArray, places: Columns, out: FloatArray) -> None:
        """Write rows to their places in ``out``, and 0 to all others."""
        is_zero = np.ones(len(out), np.bool_)
        is_zero[places] = False
        out[np.flatnonzero(is_zero)] = 0
        out[places] = rows

    def _delta_before(self, index: int, delta: FloatArray) -> FloatArray:
        """Return D of the layer before layer ``index``; its outputs are written over."""
        count = len(delta)
        before = self._deltas[index - 1][:count]
        np.matmul(delta, self._network.layers[index].weights.T, out=before)
        if self._dropout:
            before *= self._masks[index - 1][:count]
        activation = self._network.layers[index - 1].activation
        self._derive(activation, before, self._outputs[index][:count])
        return before

    def _derive(self, activation: str, deltas: FloatArray, outputs: FloatArray) -> None:
        """Multiply deltas by the derivative f'(Z), in place; the outputs may be written over."""
        ACTIVATIONS[activation].backward(deltas, outputs)


def summed_gradient(passes: Sequence[Backpropagation], _: int, part: slice) -> Vector:
    """Return the sum of the gradients of all threads, of which one thread needs a part.

    Args:
        passes: One of each thread; the sum is written over the first one's gradient.
        _: The index of the thread that asks.
        part: Which part of the sum it needs.
    """
    first, *others = (each.gradient for each in passes)
    for gradient in others:
        first[part] += gradient[part]
    return first
