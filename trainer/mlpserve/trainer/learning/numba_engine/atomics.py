"""Atomic integers for compiled loops: what threads tell each other by.

Each is an element of an array; what a thread wrote before it changed one, a thread that sees the
change sees too.
"""

# Numba looks at the names of the arguments, and hands over objects of many classes of its own.
# ruff: noqa: ANN401, ARG001
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from numba import types
from numba.extending import intrinsic

# The signature of a call, and the function that writes its instructions.
Instructions: TypeAlias = tuple[Any, Callable[[Any, Any, Any, Any], Any]]
typed_intrinsic: Any = intrinsic  # Numba's has no types
_ORDER: Final = "seq_cst"


@typed_intrinsic
def load(typing: Any, array: Any, place: Any) -> Instructions:
    """Return an element."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(context, builder, array, arguments), _ORDER, 8)

    return types.int64(array, types.intp), write


@typed_intrinsic
def store(typing: Any, array: Any, place: Any, value: Any) -> Instructions:
    """Set an element."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments)
        builder.store_atomic(arguments[2], pointer, _ORDER, 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), write


@typed_intrinsic
def add(typing: Any, array: Any, place: Any, value: Any) -> Instructions:
    """Add to an element; return what it was."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments)
        return builder.atomic_rmw("add", pointer, arguments[2], _ORDER)

    return types.int64(array, types.intp, types.int64), write


@typed_intrinsic
def replace(typing: Any, array: Any, place: Any, old: Any, new: Any) -> Instructions:
    """Set an element if it has the old value; return whether it had."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments)
        found = builder.cmpxchg(pointer, arguments[2], arguments[3], _ORDER, _ORDER)
        return builder.extract_value(found, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), write


def _pointer(context: Any, builder: Any, array: Any, arguments: Any) -> Any:
    """Return where the element of a contiguous array is."""
    data = context.make_array(array)(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]])
