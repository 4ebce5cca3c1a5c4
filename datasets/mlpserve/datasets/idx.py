"""IDX files, the format in which MNIST and its relatives are published.

An IDX file is a header and one array: two zero bytes, the type of the values (08 for unsigned
bytes, the only one read here), the number of dimensions, the size of each dimension as four
big-endian bytes, then the values in row-major order. Knows the official file names, but no
particular data set.
"""

import gzip
import io
import math
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import Dataset, DatasetError, Split, numbered_class_labels

MAX_IDX_BYTES = 2 * 1024**3  # of values in one file; thirty times the largest of MNIST's

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
IDX_NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

IMAGE_DIMENSIONS = 3  # (count, rows, columns)
LABEL_DIMENSIONS = 1

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTES_MAGIC = b"\x00\x00\x08"
_SIZE_BYTES = 4  # of one dimension's size in the header
_MAX_DIMENSIONS = 32  # as many as every supported NumPy can hold
_CHUNK_BYTES = 1024**2


def read_idx(path: Path, *, dimensions: int | None = None) -> npt.NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzipped or not (its content decides, not its name).

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


def read_idx_split(images_path: Path, labels_path: Path) -> Split:
    """Read a split from a file of images and the file of their labels.

    Returns:
        (N, rows, columns) uint8 images and their N labels.

    Raises:
        DatasetError: One of the two cannot be used, or they do not belong together.
    """
    images = read_idx(images_path, dimensions=IMAGE_DIMENSIONS)
    labels = read_idx(labels_path, dimensions=LABEL_DIMENSIONS)
    if len(images) != len(labels):
        raise DatasetError(
            f"{images_path} holds {len(images)} images, but {labels_path} holds "
            f"{len(labels)} labels; expected one for each"
        )
    return Split(images=images, labels=labels.astype(np.int64))


def read_idx_dataset(folder: Path) -> Dataset:
    """Read both splits from a folder with the four official files; it is called like the folder.

    Raises:
        DatasetError: A file is missing or cannot be used, or the splits do not fit together.
    """
    paths = find_idx_files(folder)
    train = read_idx_split(paths[TRAIN_IMAGES], paths[TRAIN_LABELS])
    test = read_idx_split(paths[TEST_IMAGES], paths[TEST_LABELS])
    class_labels = numbered_class_labels(train, test)
    try:
        name = folder.resolve().name
        return Dataset(name=name, class_labels=class_labels, train=train, test=test)
    except DatasetError as error:
        raise DatasetError(f"{folder}: {error}") from error


def read_idx_test_split(folder: Path) -> Split:
    """Read the test split alone, as ``read_idx_dataset`` does.

    Raises:
        DatasetError: One of its two files is missing or cannot be used.
    """
    paths = find_idx_files(folder, (TEST_IMAGES, TEST_LABELS))
    return read_idx_split(paths[TEST_IMAGES], paths[TEST_LABELS])


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
) -> npt.NDArray[np.uint8]:
    shape = _read_shape(file, path, dimensions)
    size = math.prod(shape)
    if size > MAX_IDX_BYTES:
        raise DatasetError(
            f"{path}: the header declares {size} values in shape {shape}, "
            f"the most that is read is {MAX_IDX_BYTES}"
        )
    values = _read_at_most(file, size + 1)
    if len(values) != size:
        came = "more follow" if len(values) > size else f"only {len(values)} are there"
        raise DatasetError(
            f"{path}: the header declares {size} values in shape {shape}, but {came}"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_shape(
    file: BinaryIO | io.BufferedIOBase, path: Path, dimensions: int | None
) -> tuple[int, ...]:
    magic = file.read(len(_UNSIGNED_BYTES_MAGIC) + 1)
    if len(magic) <= len(_UNSIGNED_BYTES_MAGIC) or not magic.startswith(_UNSIGNED_BYTES_MAGIC):
        raise DatasetError(
            f"{path}: expected an IDX file of unsigned bytes, which starts with 00 00 08 and the "
            f"number of dimensions, got {magic.hex(' ') or 'an empty file'}"
        )
    count = magic[-1]
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
    return shape


def _read_at_most(file: BinaryIO | io.BufferedIOBase, limit: int) -> bytearray:
    # In pieces, because read(limit) allocates the limit before it knows what there is to read.
    values = bytearray()
    while len(values) < limit and (chunk := file.read(min(_CHUNK_BYTES, limit - len(values)))):
        values += chunk
    return values
