"""Arrays in ``.npy`` files: small ones are loaded, large ones stay on disk.

Never unpickles, and compares the size that a header declares to that of the file.
"""

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from mlpserve.datasets.disk_images import SMALL_BYTES, Array, DiskImages
from mlpserve.datasets.errors import DatasetError

_HEADER_READERS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class NpyHeader:
    """The header of an ``.npy`` file.

    Attributes:
        shape: That of the array.
        dtype: That of its values.
        is_transposed: Whether the first index runs fastest, as Fortran has it.
        offset: Where the values begin, in bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_transposed: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Return how many bytes the values have."""
        return math.prod(self.shape) * self.dtype.itemsize

    def images(self, path: Path) -> DiskImages:
        """Return the array as images on disk.

        Raises:
            DatasetError: The file cannot be opened.
        """
        return DiskImages(path, offset=self.offset, shape=self.shape, dtype=self.dtype)


def read_npy_header(file: IO[bytes]) -> NpyHeader:
    """Read the header of an ``.npy`` file, from its beginning.

    Raises:
        DatasetError: It declares what is never read, or more than there is.
        ValueError: It is no such file.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise DatasetError(f"expected .npy format 1.0 or 2.0, got {version}")
    shape, is_transposed, dtype = _HEADER_READERS[version](file)
    header = NpyHeader(shape, dtype, is_transposed, file.tell())
    if dtype.hasobject:
        raise DatasetError("holds Python objects, which are never unpickled")
    present = file.seek(0, os.SEEK_END) - header.offset
    if min(shape, default=1) < 0 or dtype.itemsize == 0 or header.nbytes > present:
        raise DatasetError(
            f"the header declares {header.nbytes} bytes ({dtype} {shape}), but {present} are there"
        )
    return header


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the beginning of an ``.npy`` file; it is as long for any number of images."""
    file = io.BytesIO()
    facts = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.getvalue()


def read_npy(path: Path) -> Array:
    """Return the array of an ``.npy`` file, in memory, or as images on disk where they are large.

    Raises:
        DatasetError: The file cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            header = read_npy_header(file)
            if header.nbytes <= SMALL_BYTES or math.prod(header.shape[1:]) == 1:  # labels
                file.seek(0)
                array: Array = np.lib.format.read_array(file, allow_pickle=False)
                return array
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    # NumPy answers damaged input with several exceptions, and promises no list of them.
    except Exception as error:
        raise DatasetError(f"{path}: expected an .npy file: {error}") from error
    if header.is_transposed:
        raise DatasetError(
            f"{path}: expected images one after the other, got an array in Fortran order; save "
            "numpy.ascontiguousarray of it"
        )
    return cast("Array", header.images(path))
