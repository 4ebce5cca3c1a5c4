"""Vector registers for compiled loops: neighbours in a row of a matrix, held by the processor.

A loop that adds up many rows is fast where the sum stays in registers. LLVM does not keep it there
by itself, because the sum might be a part of what is read. So the loop says it:

    total = zeros(out, 16)
    for index in range(len(rows)):
        total = multiply_add(total, factors[index], load(matrix, rows[index], column, 16))
    store(total, out, row, column)

LLVM makes of a register of any width as many as it takes of those that the processor has. Matrices
are C-contiguous, and no place in one is checked.
"""

# Numba looks at the names of the arguments, and hands over objects of many classes of its own.
# ruff: noqa: ANN401, ARG001
# mypy: disable-error-code="no-untyped-call, untyped-decorator"

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

from mlpserve.trainer.learning.numba_engine.atomics import Instructions, typed_intrinsic

_literally: Any = intrinsic(prefer_literal=True)  # widths are constants


class _Register(types.Type):
    """Numba's type of so many numbers, of a dtype, that are computed with at once."""

    def __init__(self, dtype: Any, width: int) -> None:
        self.dtype = dtype
        self.width = width
        super().__init__(f"Register({dtype}, {width})")


@register_model(_Register)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, manager: Any, register: _Register) -> None:
        number = manager.lookup(register.dtype).get_value_type()
        super().__init__(manager, register, ir.VectorType(number, register.width))


@_literally
def zeros(typing: Any, matrix: Any, width: Any) -> Instructions:
    """Return a register of zeros, for numbers as those of a matrix."""
    register = _Register(matrix.dtype, width.literal_value)

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(register), None)

    return register(matrix, width), write


@_literally
def load(typing: Any, matrix: Any, row: Any, column: Any, width: Any) -> Instructions:
    """Return numbers of a row of a matrix, from a column on."""
    register = _Register(matrix.dtype, width.literal_value)

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = builder.load(_pointer(context, builder, matrix, arguments[:3], register))
        numbers.align = matrix.dtype.bitwidth // 8
        return numbers

    return register(matrix, types.intp, types.intp, width), write


@typed_intrinsic
def store(typing: Any, register: Any, matrix: Any, row: Any, column: Any) -> Instructions:
    """Write a register into a row of a matrix, from a column on."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, matrix, arguments[1:], register)
        builder.store(arguments[0], pointer).align = matrix.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(register, matrix, types.intp, types.intp), write


@typed_intrinsic
def multiply_add(typing: Any, total: Any, factor: Any, register: Any) -> Instructions:
    """Return ``total + factor register``."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, factor, numbers = arguments
        undefined = ir.Constant(numbers.type, ir.Undefined)
        first = ir.Constant(ir.IntType(32), 0)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), numbers.type.count), None)
        factors = builder.insert_element(undefined, factor, first)
        factors = builder.shuffle_vector(factors, undefined, everywhere)
        product = builder.fmul(factors, numbers, flags=("contract",))
        return builder.fadd(total, product, flags=("contract",))

    return total(total, total.dtype, total), write


def _pointer(context: Any, builder: Any, matrix: Any, arguments: Any, register: Any) -> Any:
    """Return the pointer to the numbers at a row and a column of a matrix."""
    array = make_array(matrix)(context, builder, arguments[0])
    shape, strides = (cgutils.unpack_tuple(builder, each) for each in (array.shape, array.strides))
    pointer = cgutils.get_item_pointer2(
        context, builder, array.data, shape, strides, "C", arguments[1:]
    )
    return builder.bitcast(pointer, context.get_value_type(register).as_pointer())
