"""Matrix products of compiled code: the loop inside ``numpy.matmul``, called without Python.

So they are the same to the bit, by the same BLAS, and nobody waits for the interpreter's lock.
Source of the layout and of the arguments: NumPy's C API, ``PyUFuncObject``.
"""

# Numba looks at the names of the arguments, and hands over objects of many classes of its own.
# ruff: noqa: ANN401, ARG001
# mypy: disable-error-code="untyped-decorator"

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from mlpserve.model.activations import FloatArray
from mlpserve.trainer.learning.numba_engine.atomics import Instructions, typed_intrinsic
from mlpserve.trainer.learning.numba_engine.loops import compiled


class _UFunc(ctypes.Structure):
    """The beginning of a ``PyUFuncObject``, behind what every object of Python begins with."""

    _fields_ = [
        ("nin", ctypes.c_int),
        ("nout", ctypes.c_int),
        ("nargs", ctypes.c_int),
        ("identity", ctypes.c_int),
        ("functions", ctypes.POINTER(ctypes.c_void_p)),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("ntypes", ctypes.c_int),
    ]


def matmul_address(dtype: np.dtype[Any]) -> int | None:
    """Return the address of NumPy's loop for products of a dtype; None where it is not known."""
    ufunc = _UFunc.from_address(id(np.matmul) + object.__basicsize__)
    if (ufunc.nin, ufunc.nout, ufunc.nargs, ufunc.ntypes) != (2, 1, 3, len(np.matmul.types)):
        return None
    found: int | None = ufunc.functions[
        np.matmul.types.index(f"{dtype.char}{dtype.char}->{dtype.char}")
    ]
    return found


@typed_intrinsic
def _call(typing: Any, address: Any, values: Any) -> Instructions:
    """Call the loop at an address: ``void (char **operands, intp *sizes, intp *strides, void *)``.

    The three are 3, 4 and 9 values of one array, in their order.
    """
    word, byte = ir.IntType(64), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte] * 4).as_pointer()

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(values)(context, builder, arguments[1]).data
        places = [builder.gep(data, [ir.Constant(word, start)]) for start in (0, 3, 7)]
        operands = [builder.bitcast(place, byte) for place in places]
        loop = builder.inttoptr(arguments[0], kind)
        builder.call(loop, [*operands, ir.Constant(byte, None)])
        return context.get_dummy_value()

    return types.void(address, values), write


@compiled
def matmul(address: int, left: FloatArray, right: FloatArray, out: FloatArray) -> None:
    """Write ``left @ right`` into ``out``; as in NumPy, matrices may be views of any strides."""
    values = np.zeros(16, np.intp)
    values[0], values[1], values[2] = left.ctypes.data, right.ctypes.data, out.ctypes.data
    values[3] = 1  # one product; how far the next would be, are the first three strides
    values[4], values[5], values[6] = left.shape[0], left.shape[1], right.shape[1]
    values[10], values[11] = left.strides
    values[12], values[13] = right.strides
    values[14], values[15] = out.strides
    _call(address, values)
