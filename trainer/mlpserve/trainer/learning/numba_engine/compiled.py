"""Compiled engine: what NumPy needs many passes over memory for, in one loop each, by Numba.

    gather and scale | matmul | bias and activation | softmax | loss and D_L | f' | Adam

The formulas are those of ``batches``, ``backprop`` and ``optimizers``, which say why they hold;
results are the same but for rounding. Matrix products stay NumPy's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from mlpserve.model.activations import FloatArray
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Layer, Network
from mlpserve.trainer.learning.averaging import MovingAverage
from mlpserve.trainer.learning.backprop import (
    Backpropagation,
    Batch,
    BatchResult,
    Columns,
    Labels,
)
from mlpserve.trainer.learning.batches import flat_pixels
from mlpserve.trainer.learning.numba_engine import loops
from mlpserve.trainer.learning.numba_engine.sparse import SparseMatrix
from mlpserve.trainer.learning.optimizers import Adam, Gradient, Step
from mlpserve.trainer.learning.parameters import BLOCK_VALUES, Vector, blocks
from mlpserve.trainer.learning.shuffling import Order, Shuffled

# The sum of the gradients is made so much at a time: it stays in the cache until it is used.
_BLOCK_VALUES: Final = 32_768
# What is not here is computed by NumPy, which has tanh in SIMD already.
_ACTIVATE: Final[Mapping[str, Callable[[FloatArray, FloatArray], None]]] = {
    "relu": loops.relu,
    "softmax": loops.softmax,
}
_DERIVE: Final[Mapping[str, Callable[[FloatArray, FloatArray], None]]] = {
    "relu": loops.derive_relu,
    "tanh": loops.derive_tanh,
}


def fill_inputs(
    shuffled: Shuffled, rows: slice, spec: InputSpec, out: FloatArray, *, skips_zero_columns: bool
) -> Columns | None:
    """Write images as inputs; see ``batches.fill_inputs``."""
    # Gathered first: memcpy has more loads under way at once than a loop that computes.
    pixels = flat_pixels(shuffled.take(rows))
    offset, divisor = map(out.dtype.type, spec.scaling(pixels.dtype))
    if not skips_zero_columns:
        loops.scale(pixels, offset, 1 / divisor, out)
        return None
    columns: Columns = np.empty(pixels.shape[1], np.intp)
    black = pixels.dtype.type(spec.limits(pixels.dtype)[0])
    columns = columns[: loops.nonzero_columns(pixels, black, columns)]
    loops.scale_columns(pixels, columns, (offset, 1 / divisor), out)
    return columns


class CompiledBackpropagation(Backpropagation):
    """``Backpropagation`` with its steps between the matrix products compiled.

    Where a batch has zero columns, the first layer's part of ``gradient`` is not filled: its rows
    stay side by side as the product left them, and ``add_gradient`` puts them in their places.
    """

    def __init__(self, network: Network, **settings: Any) -> None:  # noqa: ANN401 - as its base's
        """See ``Backpropagation``."""
        super().__init__(network, **settings)
        self._is_one_chunk = True
        self._sparse: SparseMatrix | None = None  # A_0 without its zeros; None where it is dense
        self.block: Vector = np.empty(BLOCK_VALUES, self.gradient.dtype)  # for a thread's sums

    def run(
        self, batch: Batch, rows: slice, *, rng: np.random.Generator | None = None
    ) -> BatchResult:
        """See ``Backpropagation.run``."""
        self._is_one_chunk = 0 < rows.stop - rows.start <= len(self._ones)
        return super().run(batch, rows, rng=rng)

    @property
    def is_filled(self) -> bool:
        """Return whether all of ``gradient`` is there."""
        return self._columns is None or not self._is_one_chunk

    def add_gradient(self, block: slice, out: Vector) -> None:
        """Add a block of the gradient to ``out``."""
        begin = block.start
        if self._columns is not None and self._is_one_chunk:
            begin = min(max(begin, self.gradients[0].size), block.stop)
            rows = self._column_gradient[: len(self._columns)]
            loops.add_rows(rows, self._columns, block.start, out[: begin - block.start])
        out[begin - block.start :] += self.gradient[begin : block.stop]

    def _fill(self, batch: Batch, rows: slice) -> None:
        if batch.take_sparse is None:
            self._sparse = None
            super()._fill(batch, rows)
        else:
            self._sparse = batch.take_sparse(rows, self.gradient.dtype)

    def _multiply(self, index: int, out: FloatArray) -> None:
        if index > 0 or self._sparse is None:
            super()._multiply(index, out)
        else:
            self._sparse.multiply(self._network.layers[0].weights, out)

    def _activate(self, layer: Layer, sums: FloatArray) -> None:
        activate = _ACTIVATE.get(layer.activation)
        if activate is None:
            super()._activate(layer, sums)
        else:
            activate(sums, layer.bias)

    def _output_delta(self, labels: Labels, batch_size: int) -> BatchResult:
        delta = self._outputs[-1][: len(labels)]
        loss, correct = loops.output_delta(delta, labels, self._label_smoothing, batch_size)
        return BatchResult(loss / batch_size, correct)

    def _keep(self, rows: Order) -> None:
        super()._keep(rows)
        if self._sparse is not None:
            self._sparse = self._sparse.take(rows, self.gradient.dtype.type(1))

    def _dense_inputs(self, count: int) -> FloatArray:
        if self._sparse is None:
            return super()._dense_inputs(count)
        inputs = self._outputs[0][:count]
        self._sparse.write(inputs)
        return inputs

    def _weights_gradient(self, index: int, delta: FloatArray, out: FloatArray) -> None:
        if index > 0 or self._sparse is None:
            super()._weights_gradient(index, delta, out)
        else:
            self._sparse.multiply_transposed(delta, out)

    def _spread(self, rows: FloatArray, places: Columns, out: FloatArray) -> None:
        if not self._is_one_chunk:
            super()._spread(rows, places, out)

    def _derive(self, activation: str, deltas: FloatArray, outputs: FloatArray) -> None:
        derive = _DERIVE.get(activation)
        if derive is None:
            super()._derive(activation, deltas, outputs)
        else:
            derive(deltas, outputs)


class SummedGradient:
    """The sum of the gradients of all threads, made block by block while it is in the cache."""

    def __init__(self, passes: Sequence[CompiledBackpropagation], thread: int, _: slice) -> None:
        """Sum the gradients of some passes, for one thread; see ``backprop.summed_gradient``."""
        self._passes = passes
        self._scratch = passes[thread].block
        self._is_vector = len(passes) == 1 and passes[0].is_filled

    def __getitem__(self, block: slice) -> Vector:
        """Return a block of the sum, good until the next is asked for."""
        if self._is_vector:
            return self._passes[0].gradient[block]
        total = self._scratch[: block.stop - block.start]
        total[:] = 0
        for each in self._passes:
            each.add_gradient(block, total)
        return total


class CompiledAdam(Adam):
    """``Adam`` in one pass over its four vectors."""

    def update(self, part: slice, gradient: Gradient, step: Step) -> None:
        """See ``Optimizer.update``."""
        factors = self.factors(step)
        for block in blocks(part, _BLOCK_VALUES):
            means, squares = self._means[block], self._squares[block]
            loops.adam(self._parameters[block], gradient[block], means, squares, factors)

    def factors(self, step: Step) -> tuple[Any, ...]:
        """Return the factors of a step, as ``loops.adam`` takes them."""
        kept = 1 - step.learning_rate * step.weight_decay
        scale, offset = self._scale_and_offset(step)
        scalars = (kept, self._MEAN_DECAY, self._SQUARE_DECAY, scale, offset)
        return tuple(map(self._parameters.dtype.type, scalars))


class CompiledMovingAverage(MovingAverage):
    """``MovingAverage`` in one pass."""

    def update(self, part: slice, step_number: int) -> None:
        """See ``MovingAverage.update``."""
        weight = self.mean.dtype.type(self.weight(step_number))
        loops.average(self.mean[part], self._parameters[part], weight)
