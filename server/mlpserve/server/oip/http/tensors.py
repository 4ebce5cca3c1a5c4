"""The values of tensors in JSON."""

import struct
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.server.errors import RequestError
from mlpserve.server.oip.datatypes import DTYPES
from mlpserve.server.oip.requests import MAX_DIMENSIONS, OutputTensor

_HALVES: Final = ("FP16", "BF16")
_LENGTH: Final = struct.Struct("<I")


def values_from_json(data: object, datatype: str) -> npt.NDArray[Any]:
    """Return the numbers of an input, one after the other.

    Args:
        data: What its field holds: a list of numbers, or lists of lists of them.
        datatype: What it says that they are.

    Raises:
        RequestError: They are not, or the datatype can be sent in binary only.
    """
    if datatype not in DTYPES:
        return np.empty(0)  # what is wrong with the datatype is said where datatypes are known
    if datatype in _HALVES:
        raise RequestError(f"data: there is no JSON of {datatype}; send it in binary")
    dtype = DTYPES[datatype]
    numbers = _flat(data)
    is_whole = dtype.kind in "iu"
    if not set(map(type, numbers)) <= ({int} if is_whole else {int, float}):
        raise RequestError(f"data: expected numbers of {datatype}, got something else among them")
    try:
        array = np.array(numbers, np.int64 if is_whole else np.float64)
    except OverflowError as error:
        raise RequestError(
            f"data: expected numbers of {datatype}, got one far too large"
        ) from error
    with np.errstate(over="ignore"):  # what is infinite is refused as out of range
        return array if is_whole else array.astype(dtype)


def values_to_json(tensor: OutputTensor) -> list[Any]:
    """Return the values of an output; read as float32, the numbers have the same bits."""
    if tensor.datatype == "BYTES":
        return [text.decode() for text in _texts(tensor.data)]
    values: list[Any] = np.frombuffer(tensor.data, DTYPES[tensor.datatype]).tolist()
    return values


def _flat(data: object) -> list[Any]:
    """Return lists of lists as one; the shape says how they are meant."""
    for _ in range(MAX_DIMENSIONS):
        if not isinstance(data, list):
            break
        kinds = set(map(type, data))
        if list not in kinds:
            return data
        if kinds != {list}:
            break
        data = list(chain.from_iterable(data))
    raise RequestError("data: expected a list of numbers, or lists of lists of the same depth")


def _texts(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size + length
        yield data[start - length : start]
