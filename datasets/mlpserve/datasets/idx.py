"""IDX files, the format in which MNIST and its relatives are published.

An IDX file is a header and one array: two zero bytes, the type of the values (08 for unsigned
bytes, 0C for integers of 32 bits, and so on), the number of dimensions, the size of each dimension
as four big-endian bytes, then the values, big-endian, in row-major order. Knows the official file
names, but no particular data set.
"""

import gzip
import io
import math
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import DatasetError

MAX_IDX_BYTES = 2 * 1024**3  # of values in one file; thirty times the largest of MNIST's

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
IDX_NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

_GZIP_MAGIC = b"\x1f\x8b"
_MAGIC = b"\x00\x00"
_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # by the third byte
_UNSIGNED_BYTES_MAGIC = b"\x00\x00\x08"
_SIZE_BYTES = 4  # of one dimension's size in the header
_MAX_DIMENSIONS = 32  # as many as every supported NumPy can hold
_CHUNK_BYTES = 1024**2


def read_idx(path: Path, *, dimensions: int | None = None) -> npt.NDArray[Any]:
    """Read one IDX file, gzipped or not (its content decides, not its name).

    No more is read, unpacked or allocated than the file really holds, whatever its header says.

    Args:
        path: The file.
        dimensions: How many dimensions the array must have; any number if None.

    Returns:
        The array in the shape that the header declares, each dimension at least 1.

    Raises:
        DatasetError: The file cannot be read, or does not hold exactly what its header declares.
    """
    try:
        with path.open("rb") as file:
            if file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return _read_array(unpacked, path, dimensions)
            return _read_array(file, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{path}: the gzip file is damaged: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error


def find_idx_files(folder: Path, names: Collection[str] = IDX_NAMES) -> dict[str, Path]:
    """Return where a folder has each of the official files.

    Args:
        folder: Where to look; not in folders below.
        names: Those of ``IDX_NAMES`` that are needed.

    Returns:
        The path for each of the names.

    Raises:
        DatasetError: A file is missing, or the folder cannot be read.
    """
    present = present_idx_files(folder)
    missing = [name for name in names if name not in present]
    if missing:
        raise DatasetError(
            f"{folder}: expected the IDX files (.gz or not), missing {', '.join(missing)}"
        )
    return {name: present[name] for name in names}


def present_idx_files(folder: Path) -> dict[str, Path]:
    """Return where a folder has those of the official files that it has.

    ``train-images.idx3-ubyte`` counts as well, and ``.gz`` may follow. A folder that does not
    exist has none.

    Raises:
        DatasetError: The folder cannot be read.
    """
    try:
        files = {entry.name: entry for entry in folder.iterdir() if entry.is_file()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read: {error.strerror or error}") from error
    found = {name: _first_spelling(name, files) for name in IDX_NAMES}
    return {name: path for name, path in found.items() if path is not None}


def idx_header(shape: tuple[int, ...]) -> bytes:
    """Return the header of an IDX file that holds an array of unsigned bytes of that shape."""
    sizes = b"".join(size.to_bytes(_SIZE_BYTES, "big") for size in shape)
    return _UNSIGNED_BYTES_MAGIC + bytes([len(shape)]) + sizes


def _first_spelling(name: str, files: dict[str, Path]) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    spellings = (f"{name}.gz", name, f"{dotted}.gz", dotted)
    return next((files[spelling] for spelling in spellings if spelling in files), None)


def _read_array(
    file: BinaryIO | io.BufferedIOBase, path: Path, dimensions: int | None
) -> npt.NDArray[Any]:
    dtype, shape = _read_header(file, path, dimensions)
    size = math.prod(shape)
    if size * dtype.itemsize > MAX_IDX_BYTES:
        raise DatasetError(
            f"{path}: the header declares {size} values in shape {shape}, "
            f"the most that is read is {MAX_IDX_BYTES // dtype.itemsize}"
        )
    values = _read_at_most(file, size * dtype.itemsize + 1)
    if len(values) != size * dtype.itemsize:
        is_short = len(values) < size * dtype.itemsize
        came = f"only {len(values) // dtype.itemsize} are there" if is_short else "more follow"
        raise DatasetError(
            f"{path}: the header declares {size} values in shape {shape}, but {came}"
        )
    return np.frombuffer(values, dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _read_header(
    file: BinaryIO | io.BufferedIOBase, path: Path, dimensions: int | None
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(len(_UNSIGNED_BYTES_MAGIC) + 1)
    if len(magic) <= len(_UNSIGNED_BYTES_MAGIC) or not magic.startswith(_MAGIC):
        raise DatasetError(
            f"{path}: expected an IDX file, which starts with 00 00, the type of its values and "
            f"the number of dimensions, got {magic.hex(' ') or 'an empty file'}"
        )
    kind, count = magic[-2:]
    if kind not in _DTYPES:
        raise DatasetError(
            f"{path}: expected values of type {', '.join(f'{known:02X}' for known in _DTYPES)}, "
            f"got {kind:02X}"
        )
    if dimensions is not None and count != dimensions:
        raise DatasetError(f"{path}: expected {dimensions} dimensions, got {count}")
    if not 1 <= count <= _MAX_DIMENSIONS:
        raise DatasetError(f"{path}: expected 1 to {_MAX_DIMENSIONS} dimensions, got {count}")
    sizes = file.read(count * _SIZE_BYTES)
    if len(sizes) != count * _SIZE_BYTES:
        raise DatasetError(f"{path}: ends within the header, after {len(magic) + len(sizes)} bytes")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if 0 in shape:
        raise DatasetError(f"{path}: expected sizes of at least 1, got shape {shape}")
    return np.dtype(_DTYPES[kind]), shape


def _read_at_most(file: BinaryIO | io.BufferedIOBase, limit: int) -> bytearray:
    # In pieces, because read(limit) allocates the limit before it knows what there is to read.
    values = bytearray()
    while len(values) < limit and (chunk := file.read(min(_CHUNK_BYTES, limit - len(values)))):
        values += chunk
    return values
