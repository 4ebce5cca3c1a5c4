"""One step of a thread's part of a network in one compiled function; see ``tensor_parallel``.

    A_0 -> A_1 ... A_L = P -> D_L ... D_1; of each layer the gradient, and at once its step of Adam

The formulas are those of ``backprop`` and ``optimizers``.
"""

from typing import Final, NamedTuple

import numpy as np

from mlpserve.model.activations import FloatArray
from mlpserve.trainer.learning.backprop import MAX_KEPT_SHARE, Columns, Labels
from mlpserve.trainer.learning.numba_engine import loops
from mlpserve.trainer.learning.numba_engine.loops import compiled
from mlpserve.trainer.learning.numba_engine.products import matmul
from mlpserve.trainer.learning.numba_engine.team import Counters, arrive, await_arrivals, await_step
from mlpserve.trainer.learning.parameters import Vector

# The gradient of the first layer is put in its places so much at a time: it stays in the cache.
_BLOCK_VALUES: Final = 16_384


class Part(NamedTuple):
    """The part of a network that is a thread's, and arrays that only this thread writes to.

    A vector holds one matrix or layer after the other.
    """

    thread: int
    threads: int
    matmul: int  # the address of NumPy's
    widths: Columns  # (L + 1,) of the part
    parameters: Vector
    gradient: Vector
    means: Vector  # of Adam
    squares: Vector
    average: Vector  # of the parameters; empty if none is kept
    outputs: Vector  # A_1 ... A_L
    deltas: Vector  # D_1 ... D_(L-1)
    column_weights: FloatArray  # the rows of W_1 that belong to nonzero columns
    column_gradient: FloatArray
    kept_inputs: FloatArray  # A_0 of the rows that go backward


class Shared(NamedTuple):
    """What a step is about: for all threads."""

    inputs: FloatArray  # (max_rows, D) A_0
    columns: Columns  # (D,) which are filled
    labels: Labels  # (max_rows,)
    sizes: Columns  # (2,) how many rows and columns there are
    label_smoothing: float
    learned_probability: float
    factors: Vector  # (6,) of Adam, and the weight of the average
    partials: FloatArray  # (2, T, ...) what threads add to a sum; two, which take turns
    result: Vector  # (2,) the loss and the hits


@compiled
def learn(team: Counters, part: Part, shared: Shared, step: int) -> bool:
    """Take a step, once it is announced; the followers, all from then on that are announced soon.

    Returns:
        Whether nobody was lost.
    """
    layers = len(part.widths) - 1
    meetings = layers // 2 + (layers - 2) // 2 + 1  # of a step: the sums, and its end
    while await_step(team, part.thread, step + 1):
        meeting = step * meetings
        for index in range(layers):
            if not forward(team, part, shared, index, meeting):
                return False
            meeting += index % 2
        kept = turn(part, shared)
        for index in range(layers - 1, -1, -1):
            if not backward(team, part, shared, index, kept, meeting):
                return False
            meeting += is_summed_backward(part, index)
        arrive(team)
        step += 1
        if part.thread == 0:
            return await_arrivals(team, (meeting + 1) * part.threads)
    return True


@compiled
def forward(team: Counters, part: Part, shared: Shared, index: int, meeting: int) -> bool:
    """Compute the outputs of a layer."""
    rows, used = shared.sizes
    sums = matrix(part.outputs, part.widths, index + 1, rows, len(shared.inputs))
    out = sums
    if index % 2:
        out = partial(shared, meeting, part.thread, rows, part.widths[index + 1])
    if index == 0:
        columns = shared.columns[:used]
        weights = first_weights(part, columns)
        matmul(part.matmul, shared.inputs[:rows, :used], weights, out)
    else:
        seen = matrix(part.outputs, part.widths, index, rows, len(shared.inputs))
        matmul(part.matmul, seen, layer(part.parameters, part.widths, index)[0], out)
    if index % 2 and not add_partials(team, part, shared, meeting, sums):
        return False
    bias = layer(part.parameters, part.widths, index)[1]
    if index < len(part.widths) - 2:
        loops.relu(sums, bias)
    else:
        loops.softmax(sums, bias)
    return True


@compiled
def turn(part: Part, shared: Shared) -> int:
    """Turn P into D_L, and move the rows that go backward to the front; return their number.

    All threads have the same P, so they agree.
    """
    rows: int = shared.sizes[0]
    labels, layers, most = shared.labels[:rows], len(part.widths) - 1, len(shared.inputs)
    delta = matrix(part.outputs, part.widths, layers, rows, most)
    loss, correct = loops.output_delta(delta, labels, shared.label_smoothing, rows)
    if part.thread == 0:
        shared.result[0], shared.result[1] = loss / rows, correct
    if shared.learned_probability == 1:
        return rows
    target = 1 - shared.label_smoothing * (1 - 1 / part.widths[layers])
    limit = shared.learned_probability - target
    kept = np.empty(rows, np.intp)
    count = 0
    for row in range(rows):
        kept[count] = row
        count += delta[row, labels[row]] * rows < limit
    if count > MAX_KEPT_SHARE * rows:
        return rows
    for index in range(1, layers + 1):
        array = matrix(part.outputs, part.widths, index, rows, most)
        for row in range(count):
            copy(array[kept[row]], array[row])
    for row in range(count):
        copy(shared.inputs[kept[row]], part.kept_inputs[row])
    return count


@compiled
def backward(  # noqa: PLR0917 - Numba has positions only
    team: Counters, part: Part, shared: Shared, index: int, kept: int, meeting: int
) -> bool:
    """Compute D of the layer before a layer; then change the layer."""
    rows, used = shared.sizes
    layers, most = len(part.widths) - 1, len(shared.inputs)
    if index == layers - 1:
        delta = matrix(part.outputs, part.widths, layers, kept, most)
    else:
        delta = matrix(part.deltas, part.widths, index + 1, kept, most)
    weights_gradient, bias_gradient = layer(part.gradient, part.widths, index)
    sum_rows(delta, bias_gradient)
    if index == 0:
        inputs = shared.inputs[:kept, :used]
        if kept < rows:
            inputs = part.kept_inputs[:kept, :used]
        gradient = part.column_gradient[:used]
        matmul(part.matmul, inputs.T, delta, gradient)
        change_first_layer(part, shared, gradient)
        return True
    seen = matrix(part.outputs, part.widths, index, kept, most)
    matmul(part.matmul, seen.T, delta, weights_gradient)
    weights = layer(part.parameters, part.widths, index)[0]
    before = matrix(part.deltas, part.widths, index, kept, most)
    if is_summed_backward(part, index):
        mine = partial(shared, meeting, part.thread, kept, part.widths[index])
        matmul(part.matmul, delta, weights.T, mine)
        if not add_partials(team, part, shared, meeting, before):
            return False
    else:
        matmul(part.matmul, delta, weights.T, before)
    loops.derive_relu(before, seen)
    start, stop = place(part.widths, index), place(part.widths, index + 1)
    change(part, shared, start, stop, part.gradient[start:stop])
    return True


@compiled
def is_summed_backward(part: Part, index: int) -> bool:
    """Return whether a layer has a part of its columns only, and layers before it."""
    return index % 2 == 0 and 0 < index < len(part.widths) - 2


@compiled
def partial(shared: Shared, meeting: int, thread: int, rows: int, width: int) -> FloatArray:
    """Return the (rows, width) that a thread adds to a sum."""
    return shared.partials[meeting % 2, thread, : rows * width].reshape(rows, width)


@compiled
def add_partials(team: Counters, part: Part, shared: Shared, meeting: int, out: FloatArray) -> bool:
    """Write the sum of what all threads have, in their order; return False if one is lost."""
    arrive(team)
    if not await_arrivals(team, (meeting + 1) * part.threads):
        return False
    total = out.reshape(out.size)
    first = shared.partials[meeting % 2, 0]
    second = shared.partials[meeting % 2, 1]
    for index in range(len(total)):
        total[index] = first[index] + second[index]
    for thread in range(2, part.threads):
        more = shared.partials[meeting % 2, thread]
        for index in range(len(total)):
            total[index] += more[index]
    return True


@compiled
def first_weights(part: Part, columns: Columns) -> FloatArray:
    """Return the rows of W_1 that belong to some columns of A_0."""
    weights = layer(part.parameters, part.widths, 0)[0]
    if len(columns) == len(weights):
        return weights
    taken = part.column_weights[: len(columns)]
    for row in range(len(columns)):
        copy(weights[columns[row]], taken[row])
    return taken


@compiled
def change_first_layer(part: Part, shared: Shared, rows: FloatArray) -> None:
    """Take a step of W_1, of whose gradient these are the rows of nonzero columns, and of b_1."""
    width, filled = part.widths[1], 0
    columns = shared.columns[: len(rows)]
    some = max(1, _BLOCK_VALUES // width)
    for start in range(0, part.widths[0], some):
        stop = min(start + some, part.widths[0])
        gradient = part.gradient[start * width : stop * width]
        for row in range(start, stop):
            slope = gradient[(row - start) * width : (row - start + 1) * width]
            if filled < len(columns) and columns[filled] == row:
                copy(rows[filled], slope)
                filled += 1
            else:
                fill(slope, 0)
        change(part, shared, start * width, stop * width, gradient)
    start, stop = part.widths[0] * width, place(part.widths, 1)
    change(part, shared, start, stop, part.gradient[start:stop])


@compiled
def change(part: Part, shared: Shared, start: int, stop: int, gradient: Vector) -> None:
    """Change some of the parameters by Adam, and their average."""
    parameters = part.parameters[start:stop]
    kept, mean_decay, square_decay, scale, offset, weight = shared.factors
    factors = (kept, mean_decay, square_decay, scale, offset)
    means, squares = part.means[start:stop], part.squares[start:stop]
    loops.adam(parameters, gradient, means, squares, factors)
    if len(part.average):
        loops.average(part.average[start:stop], parameters, weight)


@compiled
def sum_rows(matrix: FloatArray, out: Vector) -> None:
    """Write the sum of the rows."""
    fill(out, 0)
    for row in range(len(matrix)):
        values = matrix[row]
        for column in range(len(out)):
            out[column] += values[column]


@compiled
def copy(source: Vector, target: Vector) -> None:
    """Copy values; faster to compile than ``target[:] = source``."""
    for index in range(len(target)):
        target[index] = source[index]


@compiled
def fill(target: Vector, value: float) -> None:
    """Set all values."""
    for index in range(len(target)):
        target[index] = value


@compiled
def place(widths: Columns, index: int) -> int:
    """Return where a layer begins in a vector of parameters."""
    start = 0
    for before in range(index):
        start += (widths[before] + 1) * widths[before + 1]
    return start


@compiled
def layer(vector: Vector, widths: Columns, index: int) -> tuple[FloatArray, Vector]:
    """Return W and b of a layer, or what belongs to them, as views of a vector."""
    start = place(widths, index)
    fan_in, fan_out = widths[index], widths[index + 1]
    end = start + fan_in * fan_out
    return vector[start:end].reshape(fan_in, fan_out), vector[end : end + fan_out]


@compiled
def matrix(vector: Vector, widths: Columns, index: int, rows: int, most: int) -> FloatArray:
    """Return the first rows of A or D of a layer, from 1, of the at most ``most``."""
    start = most * widths[1:index].sum()
    return vector[start : start + rows * widths[index]].reshape(rows, widths[index])
