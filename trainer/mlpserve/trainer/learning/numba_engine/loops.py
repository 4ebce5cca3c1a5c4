"""Compiled loops of the Numba engine, each over arrays that somebody else allocated.

Each is compiled the first time that it is called, in about a second, and kept on disk for the next
process. They are written as loops over rows and columns, which is what Numba makes SIMD of.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, cast

import numpy as np
from numba import njit

from mlpserve.model.activations import FloatArray
from mlpserve.trainer.learning.backprop import LOG_OFFSET, Columns, Labels
from mlpserve.trainer.learning.parameters import Vector
from mlpserve.trainer.learning.shuffling import Pixels

Scalar: TypeAlias = Any  # a NumPy scalar of the dtype of the arrays beside it

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Sums may be reordered, and divisions become multiplications, so that loops become SIMD; but a NaN
# stays one, because it is how a training that diverged is found.
_FAST_MATH: Final = frozenset({"arcp", "contract", "nsz", "reassoc"})


def compiled(function: _Function) -> _Function:
    """Return a function compiled on its first call, which runs without the interpreter's lock."""
    make = partial(njit, nogil=True, fastmath=set(_FAST_MATH), error_model="numpy")
    try:
        return cast("_Function", make(cache=True)(function))
    except RuntimeError:  # there is no folder to keep it in
        return cast("_Function", make()(function))


@compiled
def scale(pixels: Pixels, offset: Scalar, factor: Scalar, out: FloatArray) -> None:
    """Write (N, D) pixels as inputs: ``(x - offset) factor``."""
    for row in range(len(pixels)):
        image, target = pixels[row], out[row]
        for column in range(len(image)):
            target[column] = image[column]  # first as a float of the right size
            target[column] = (target[column] - offset) * factor


@compiled
def nonzero_columns(pixels: Pixels, black: Scalar, columns: Columns) -> int:
    """Write which columns are not black in all rows, in rising order; return how many."""
    is_nonzero = np.zeros(len(columns), np.uint8)
    for row in range(len(pixels)):
        image = pixels[row]
        for column in range(len(columns)):
            is_nonzero[column] |= image[column] != black
    count = 0
    for column in range(len(columns)):
        columns[count] = column
        count += is_nonzero[column]
    return count


@compiled
def scale_columns(
    pixels: Pixels, columns: Columns, scaling: tuple[Scalar, Scalar], out: FloatArray
) -> None:
    """Write the given columns of (N, D) pixels, side by side, into the first of ``out``."""
    offset, factor = scaling
    # Columns come in runs of neighbours, each a loop of its own that becomes SIMD.
    ends = np.flatnonzero(columns[1:] != columns[:-1] + 1) + 1  # of all runs but the last
    for row in range(len(pixels)):
        image, target, begin = pixels[row], out[row], 0
        for run in range(len(ends) + 1):
            end = ends[run] if run < len(ends) else len(columns)
            if begin == end:
                continue
            source, copy = image[columns[begin] :], target[begin:end]
            for column in range(len(copy)):
                copy[column] = source[column]
                copy[column] = (copy[column] - offset) * factor
            begin = end


@compiled
def relu(sums: FloatArray, bias: FloatArray) -> None:
    """Add the bias to the sums, and replace what is below 0 by 0."""
    for row in range(len(sums)):
        values = sums[row]
        for column in range(len(bias)):
            value = values[column] + bias[column]
            values[column] = 0 if value < 0 else value  # noqa: FURB136 - a NaN stays one


@compiled
def softmax(sums: FloatArray, bias: FloatArray) -> None:
    """Add the bias to the sums, and replace each row by its softmax."""
    for row in range(len(sums)):
        values = sums[row]
        highest = values[0] + bias[0]
        for column in range(len(bias)):
            values[column] += bias[column]
            highest = max(highest, values[column])
        total = highest - highest
        for column in range(len(bias)):
            values[column] = np.exp(values[column] - highest)
            total += values[column]
        for column in range(len(bias)):
            values[column] /= total


@compiled
def output_delta(
    delta: FloatArray, labels: Labels, smoothing: float, batch_size: int
) -> tuple[float, int]:
    """Turn P into D_L, in its place; return the sum of the losses, and the hits."""
    loss, correct = 0.0, 0
    evenly = smoothing / delta.shape[1]
    for row in range(len(labels)):
        values, label = delta[row], labels[row]
        correct += values.argmax() == label
        loss -= (1 - smoothing) * np.log(values[label] + LOG_OFFSET)
        if smoothing:
            for column in range(len(values)):
                loss -= evenly * np.log(values[column] + LOG_OFFSET)
                values[column] -= evenly
        values[label] -= 1 - smoothing
        for column in range(len(values)):
            values[column] /= batch_size
    return loss, correct


@compiled
def derive_relu(deltas: FloatArray, outputs: FloatArray) -> None:
    """Multiply deltas by 1 where the outputs are above 0, and by 0 elsewhere."""
    for row in range(len(deltas)):
        values, found = deltas[row], outputs[row]
        for column in range(len(values)):
            values[column] = values[column] if found[column] > 0 else 0


@compiled
def derive_tanh(deltas: FloatArray, outputs: FloatArray) -> None:
    """Multiply deltas by ``1 - outputs^2``."""
    for row in range(len(deltas)):
        values, found = deltas[row], outputs[row]
        for column in range(len(values)):
            values[column] *= 1 - found[column] * found[column]


@compiled
def add_rows(rows: FloatArray, places: Columns, start: int, out: Vector) -> None:
    """Add rows to their places in a flattened matrix, of which ``out`` is a piece at ``start``."""
    width = rows.shape[1]
    for index in range(np.searchsorted(places, start // width), len(places)):
        begin = places[index] * width - start
        if begin >= len(out):
            break
        source, target = rows[index, max(0, -begin) :], out[max(0, begin) : begin + width]
        for column in range(len(target)):
            target[column] += source[column]


@compiled
def adam(
    parameters: Vector,
    gradient: Vector,
    means: Vector,
    squares: Vector,
    factors: tuple[Scalar, ...],
) -> None:
    """Take a step of ``optimizers.Adam``; the first factor is what decay leaves of parameters."""
    kept, mean_decay, square_decay, scale, offset = factors
    for index in range(len(parameters)):
        slope = gradient[index]
        mean = mean_decay * means[index] + slope
        square = square_decay * squares[index] + slope * slope
        means[index], squares[index] = mean, square
        parameters[index] = kept * parameters[index] - mean / (scale * np.sqrt(square) + offset)


@compiled
def average(mean: Vector, parameters: Vector, weight: Scalar) -> None:
    """Move the mean towards the parameters by ``weight`` of their distance."""
    for index in range(len(mean)):
        mean[index] += weight * (parameters[index] - mean[index])
