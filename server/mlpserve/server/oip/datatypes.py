"""The datatypes in which images may be sent, and how their values become numbers."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BFLOAT16: Final = "BF16"
_LOW_BITS: Final = 16  # of a float32, which a bfloat16 leaves out

# How values of each are written, in little-endian bytes; NumPy has no bfloat16, so it is its bits.
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BFLOAT16: np.dtype("<u2"),
}


def numbers(data: bytes, datatype: str) -> npt.NDArray[Any]:
    """Return the values that raw bytes of a datatype mean; their number of bytes is right."""
    values = np.frombuffer(data, DTYPES[datatype])
    if datatype != BFLOAT16:
        return values
    widened = values.astype("<u4") << _LOW_BITS
    return widened.view("<f4")
