"""Sparse images: the products of the first layer where most pixels are black, by Numba.

Of MNIST's pixels four in five are 0, and add exactly 0 to ``Z_1 = A_0 @ W_1`` and to
``dW_1 = A_0.T @ D_1``. Kept are the others, row by row, as columns and values: the compressed
sparse rows (CSR) of ``A_0``. Each product is then a sum of rows of a dense matrix:

    Z_1[n] = sum of a_ni W_1[i]        dW_1[i] = sum of a_ni D_1[n]

The second one runs over the pixels, so over the rows of ``A_0.T``. While all of ``dW_1`` is in the
cache, it is cheaper to add there image by image than to transpose.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.disk_images import SMALL_BYTES
from mlpserve.model.activations import FloatArray
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.learning.numba_engine.loops import Scalar, compiled
from mlpserve.trainer.learning.numba_engine.registers import load, multiply_add, store, zeros
from mlpserve.trainer.learning.shuffling import Order, Pixels

Starts = npt.NDArray[np.int64]
Indices = npt.NDArray[np.uint16]
Values = npt.NDArray[Any]

# Where more of the pixels are not black, BLAS is faster with all of them.
_MAX_DENSITY: Final = 1 / 3
_MAX_COLUMNS: Final = 1 << 16  # an index has 16 bits
_MAX_REGISTER: Final = 64  # numbers; more are no faster
_MAX_WIDTH_TO_ADD: Final = 64  # of a gradient that is not transposed for


class SparseMatrix:
    """Rows of a matrix of which most values are 0.

    Attributes:
        starts: (rows + 1,) where in the other two each row begins, and last their end.
        columns: (values,) the column of each value that is not 0, rising in each row.
        values: (values,) these values.
        width: How many columns the matrix has.
    """

    def __init__(self, starts: Starts, columns: Indices, values: Values, width: int) -> None:
        self.starts = starts
        self.columns = columns
        self.values = values
        self.width = width

    @classmethod
    def of(cls, matrix: Pixels) -> Self:
        """Return a dense matrix of at most 65,536 columns, without its zeros."""
        count = int(np.count_nonzero(matrix))
        starts = np.zeros(len(matrix) + 1, np.int64)
        columns, values = np.empty(count + 1, np.uint16), np.empty(count + 1, matrix.dtype)
        _compress(matrix, starts, columns, values)
        return cls(starts, columns[:count], values[:count], matrix.shape[1])

    def take(self, rows: Order, factor: Scalar) -> "SparseMatrix":
        """Return some rows, their values times a factor, in its dtype."""
        arrays = _take(self.starts, self.columns, self.values, rows, factor)
        return SparseMatrix(*arrays, self.width)

    def multiply(self, matrix: FloatArray, out: FloatArray) -> None:
        """Write the product of this matrix and another one, both of one dtype."""
        for begin, loop in _loops(_sum_of_rows, out.shape[1]):
            loop(self.starts, self.columns, self.values, matrix, out, begin)

    def multiply_transposed(self, matrix: FloatArray, out: FloatArray) -> None:
        """Write the product of this matrix, transposed, and another one."""
        if out.shape[1] > _MAX_WIDTH_TO_ADD:
            arrays = _transpose(self.starts, self.columns, self.values, self.width)
            SparseMatrix(*arrays, len(self.starts) - 1).multiply(matrix, out)
            return
        out[:] = 0
        for begin, loop in _loops(_add_to_rows, out.shape[1]):
            loop(self.starts, self.columns, self.values, matrix, out, begin)

    def write(self, out: FloatArray) -> None:
        """Write all values, zeros too."""
        _write(self.starts, self.columns, self.values, out)


class SparseImages:
    """All images of a training, to take the inputs of a batch from."""

    def __init__(self, matrix: SparseMatrix, divisor: float) -> None:
        self._matrix = matrix
        self._divisor = divisor

    def take(self, images: slice | Order, dtype: np.dtype[Any]) -> SparseMatrix:
        """Return the inputs of some images, in the network's dtype."""
        if isinstance(images, slice):
            images = np.arange(images.start, images.stop)
        return self._matrix.take(images, 1 / dtype.type(self._divisor))


def sparse_images(images: Any, spec: InputSpec) -> SparseImages | None:  # noqa: ANN401 - or on disk
    """Return images without their black pixels, where that pays.

    It does not where too few are black, or black is not 0; nor are images kept a second time that
    are on disk, or take half a gigabyte.
    """
    if not isinstance(images, np.ndarray) or images.nbytes > SMALL_BYTES:
        return None
    pixels = images.reshape(len(images), spec.values_per_image)
    offset, divisor = spec.scaling(pixels.dtype)
    if offset or pixels.shape[1] > _MAX_COLUMNS:
        return None
    if np.count_nonzero(pixels) > _MAX_DENSITY * pixels.size:
        return None
    return SparseImages(SparseMatrix.of(pixels), divisor)


def _loops(make: Callable[[int], Any], width: int) -> Iterator[tuple[int, Any]]:
    """Yield for each part of ``width`` columns its beginning, and the loop for so many."""
    begin = 0
    while begin < width:
        size = min(_MAX_REGISTER, 1 << (width - begin).bit_length() - 1)
        yield begin, make(size)
        begin += size


@cache
def _sum_of_rows(size: int) -> Any:  # noqa: ANN401 - a compiled function
    """Return the loop that writes ``size`` columns of the sums of some rows each."""

    @compiled
    def loop(  # noqa: PLR0917 - Numba has positions only
        starts: Starts,
        places: Indices,
        values: Values,
        matrix: FloatArray,
        out: FloatArray,
        begin: int,
    ) -> None:
        for row in range(len(out)):
            part = slice(starts[row], starts[row + 1])
            rows, factors = places[part], values[part]
            total = zeros(out, size)
            for index in range(len(rows)):
                part_of_row = load(matrix, rows[index], begin, size)
                total = multiply_add(total, factors[index], part_of_row)
            store(total, out, row, begin)

    return loop


@cache
def _add_to_rows(size: int) -> Any:  # noqa: ANN401 - a compiled function
    """Return the loop that adds ``size`` columns of each row to some rows."""

    @compiled
    def loop(  # noqa: PLR0917 - Numba has positions only
        starts: Starts,
        places: Indices,
        values: Values,
        matrix: FloatArray,
        out: FloatArray,
        begin: int,
    ) -> None:
        for row in range(len(matrix)):
            part = slice(starts[row], starts[row + 1])
            rows, factors = places[part], values[part]
            part_of_row = load(matrix, row, begin, size)
            for index in range(len(rows)):
                total = load(out, rows[index], begin, size)
                total = multiply_add(total, factors[index], part_of_row)
                store(total, out, rows[index], begin)

    return loop


@compiled
def _compress(matrix: Pixels, starts: Starts, columns: Indices, values: Values) -> None:
    """Write what is not 0; ``columns`` and ``values`` have room for one more."""
    count = 0
    for row in range(len(matrix)):
        numbers = matrix[row]
        for column in range(len(numbers)):
            columns[count] = column
            values[count] = numbers[column]
            count += numbers[column] != 0
        starts[row + 1] = count


@compiled
def _take(
    starts: Starts, columns: Indices, values: Values, rows: Order, factor: Scalar
) -> tuple[Starts, Indices, Values]:
    new_starts = np.zeros(len(rows) + 1, np.int64)
    for index in range(len(rows)):
        row = rows[index]
        new_starts[index + 1] = new_starts[index] + starts[row + 1] - starts[row]
    new_columns = np.empty(new_starts[-1], columns.dtype)
    new_values = np.empty(new_starts[-1], np.full(1, factor).dtype)
    for index in range(len(rows)):
        part = slice(starts[rows[index]], starts[rows[index] + 1])
        new_part = slice(new_starts[index], new_starts[index + 1])
        some_columns, some_values = new_columns[new_part], new_values[new_part]
        old_columns, old_values = columns[part], values[part]
        for each in range(len(old_columns)):
            some_columns[each] = old_columns[each]
        for each in range(len(old_values)):
            some_values[each] = old_values[each]  # first as a float of the right size
            some_values[each] *= factor
    return new_starts, new_columns, new_values


@compiled
def _transpose(
    starts: Starts, columns: Indices, values: Values, width: int
) -> tuple[Starts, Indices, Values]:
    # Counted two places on: so what is then one place on moves from a row's start to its end,
    # which is where the next one starts.
    new_starts = np.zeros(width + 2, np.int64)
    for index in range(len(columns)):
        new_starts[columns[index] + 2] += 1
    for column in range(width):
        new_starts[column + 2] += new_starts[column + 1]
    new_columns, new_values = np.empty_like(columns), np.empty_like(values)
    for row in range(len(starts) - 1):
        part = slice(starts[row], starts[row + 1])
        old_columns, old_values = columns[part], values[part]
        for index in range(len(old_columns)):
            place = new_starts[old_columns[index] + 1]
            new_starts[old_columns[index] + 1] = place + 1
            new_columns[place] = row
            new_values[place] = old_values[index]
    return new_starts[:-1], new_columns, new_values


@compiled
def _write(starts: Starts, columns: Indices, values: Values, out: FloatArray) -> None:
    out[:] = 0
    for row in range(len(out)):
        for index in range(starts[row], starts[row + 1]):
            out[row, columns[index]] = values[index]
