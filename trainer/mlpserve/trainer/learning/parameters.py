"""Parameter vectors: all parameters of a network in one array.

An optimizer passes over one vector in a few large steps, which is faster than many small arrays,
and a vector is easily cut into shards, averaged and saved.
"""

import math
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np

from mlpserve.model.activations import FloatArray
from mlpserve.model.network import Network

Vector: TypeAlias = (
    FloatArray  # (P,) the parameters of a network, or as many values of another kind
)

# Some five arrays of so many float32 values are worked on at a time. Larger blocks leave the cache,
# much smaller ones cost more calls than they save.
BLOCK_VALUES: Final = 65_536
_CACHE_LINE: Final = 64  # bytes


def blocks(part: slice, size: int = BLOCK_VALUES) -> Iterator[slice]:
    """Yield a part of a vector in pieces of at most ``size``.

    A formula is several passes over its arrays; within a piece, only the first has to wait for
    memory.
    """
    for start in range(part.start, part.stop, size):
        yield slice(start, min(start + size, part.stop))


def vector_of(network: Network) -> Vector:
    """Return a copy of all parameters: of each layer the weights, row by row, and the bias."""
    arrays = [array.ravel() for array in network.parameters]
    vector = aligned((sum(map(len, arrays)),), arrays[0].dtype)
    return np.concatenate(arrays, out=vector)


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> FloatArray:
    """Return a new array of zeros, of which no SIMD load of a processor needs two cache lines."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def views(vector: Vector, network: Network) -> list[FloatArray]:
    """Return the parts of a vector, in the order and shapes of the network's parameters.

    They are views: who changes one changes the other.
    """
    sizes = [array.size for array in network.parameters]
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return [
        part.reshape(array.shape) for part, array in zip(parts, network.parameters, strict=True)
    ]
