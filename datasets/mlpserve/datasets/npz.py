"""Data sets in one ``.npz`` file, the form in which Keras keeps its data sets.

The file holds ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, if the classes have names,
``class_labels``. Never unpickles, and reads each array's declared size before the array. Knows no
particular data set.
"""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import (
    Dataset,
    DatasetError,
    Images,
    Labels,
    Split,
    numbered_class_labels,
)

MAX_NPZ_BYTES = 4 * 1024**3  # of all arrays that are read, unpacked
MAX_CLASSES = 65_536  # one stray label must not make a billion class labels

Array: TypeAlias = npt.NDArray[Any]

_TRAIN = ("x_train", "y_train")
_TEST = ("x_test", "y_test")
_CLASS_LABELS = "class_labels"
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz_dataset(path: Path) -> Dataset:
    """Read both splits; the data set is called like the file, without its ending.

    The images, ``x_train`` and ``x_test``, are (N, ...) integers from 0 to 255, kept as uint8, or
    floats from 0 to 1, kept as float32. The labels, ``y_train`` and ``y_test``, are (N,) or (N, 1)
    integers. ``class_labels`` is (K,) unicode; without it the classes are called by their number.

    Raises:
        DatasetError: The file cannot be read, or an entry is missing or something else.
    """
    arrays = read_npz_arrays(path, (*_TRAIN, *_TEST), optional=(_CLASS_LABELS,))
    train, test = _split(path, arrays, _TRAIN), _split(path, arrays, _TEST)
    with _located(path, _CLASS_LABELS):
        class_labels = _class_labels(arrays.get(_CLASS_LABELS), train, test)
    with _located(path):
        return Dataset(name=path.stem, class_labels=class_labels, train=train, test=test)


def read_npz_test_split(path: Path) -> Split:
    """Read ``x_test`` and ``y_test`` alone, as ``read_npz_dataset`` does.

    Raises:
        DatasetError: The file cannot be read, or one of the two is missing or something else.
    """
    return _split(path, read_npz_arrays(path, _TEST), _TEST)


def read_npz_arrays(
    path: Path, names: Sequence[str] = (), *, optional: Sequence[str] = ()
) -> dict[str, Array]:
    """Read the named arrays of a file, and those of the optional ones that are there.

    Raises:
        DatasetError: The file cannot be read, is too large, or lacks one of ``names``.
    """
    with _located(path), _readable(), zipfile.ZipFile(path) as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [name for name in names if name not in entries]
        if missing:
            raise DatasetError(f"expected {', '.join(names)}, missing {', '.join(missing)}")
        wanted = {name: entries[name] for name in (*names, *optional) if name in entries}
        size = sum(entry.file_size for entry in wanted.values())
        if size > MAX_NPZ_BYTES:
            raise DatasetError(f"unpacks to {size} bytes, the most that is read is {MAX_NPZ_BYTES}")
        return {name: _read_array(archive, entry) for name, entry in wanted.items()}


def _split(path: Path, arrays: dict[str, Array], names: tuple[str, str]) -> Split:
    images_name, labels_name = names
    with _located(path, images_name):
        images = _images(arrays[images_name])
    with _located(path, labels_name):
        labels = _labels(arrays[labels_name])
    with _located(path, f"{images_name} and {labels_name}"):
        return Split(images=images, labels=labels)


def _images(values: Array) -> Images:
    if values.dtype.kind == "f":
        # What float32 cannot hold becomes infinite, and a Split refuses that.
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, np.float32)
    if values.dtype.kind not in "iu":
        raise DatasetError(f"expected integers or floats, got {values.dtype}")
    if values.size and not (values.min() >= 0 and values.max() <= np.iinfo(np.uint8).max):
        raise DatasetError(f"expected integers from 0 to 255, got {values.min()} to {values.max()}")
    return np.ascontiguousarray(values, np.uint8)


def _labels(values: Array) -> Labels:
    if values.dtype.kind not in "iu":
        raise DatasetError(f"expected integer classes, got {values.dtype}")
    if values.ndim != 1 and values.shape[1:] != (1,):
        raise DatasetError(f"expected shape (N,) or (N, 1), got {values.shape}")
    if values.size and values.max() >= MAX_CLASSES:
        raise DatasetError(f"expected classes below {MAX_CLASSES}, got {values.max()}")
    return values.reshape(-1).astype(np.int64)


def _class_labels(names: Array | None, train: Split, test: Split) -> tuple[str, ...]:
    if names is None:
        return numbered_class_labels(train, test)
    if names.dtype.kind != "U" or names.ndim != 1 or not 1 <= len(names) <= MAX_CLASSES:
        raise DatasetError(
            f"expected (K,) unicode, K from 1 to {MAX_CLASSES}, got {names.dtype} {names.shape}"
        )
    try:
        texts = tuple(str(name) for name in names)
        "".join(texts).encode()  # they go into files and messages, which are UTF-8
    except (ValueError, SystemError) as error:  # the latter for what is beyond Unicode
        raise DatasetError("expected valid Unicode text") from error
    return texts


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    with _located(entry.filename):
        with _readable(), archive.open(entry) as file:
            _check_header(file, entry.file_size)
        with _readable(), archive.open(entry) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _check_header(file: IO[bytes], file_size: int) -> None:
    """Refuse what cannot be read, before NumPy allocates whatever the header declares."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise DatasetError(f"expected .npy format 1.0 or 2.0, got {version}")
    shape, _, dtype = _HEADER_READERS[version](file)
    if dtype.hasobject:
        raise DatasetError("holds Python objects, which are never unpickled")
    declared = math.prod(shape) * dtype.itemsize
    present = file_size - file.tell()
    if min(shape, default=1) < 0 or dtype.itemsize == 0 or declared != present:
        raise DatasetError(
            f"the header declares {declared} bytes ({dtype} {shape}), but {present} are there"
        )


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except DatasetError:
        raise
    except zipfile.BadZipFile as error:
        raise DatasetError(f"expected an .npz file, which is a zip: {error}") from error
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}") from error
    # zipfile and NumPy answer damaged input with a dozen exceptions, and promise no list of them.
    except Exception as error:
        raise DatasetError(f"cannot be read: {str(error) or type(error).__name__}") from error


@contextmanager
def _located(*places: object) -> Iterator[None]:
    """Name the file, and the entry in it, in front of what is wrong there."""
    try:
        yield
    except DatasetError as error:
        where = ": ".join(str(place) for place in places)
        raise DatasetError(f"{where}: {error}") from error
