"""Data sets in one ``.npz`` file, the form in which Keras and MedMNIST keep theirs.

What its arrays are called, ``array_data`` knows. Never unpickles, and reads each array's declared
size before the array.
"""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.array_data import ArrayFiles, read_array_data
from mlpserve.datasets.errors import DatasetError, located
from mlpserve.datasets.raw import RawData, ReadOptions

MAX_NPZ_BYTES = 4 * 1024**3  # of all arrays that are read, unpacked

Array: TypeAlias = npt.NDArray[Any]

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz_data(path: Path, options: ReadOptions, *, test_only: bool) -> RawData:
    """Read images and labels; the data is called like the file, without its ending.

    Args:
        path: The file.
        options: What is said about the images.
        test_only: Whether to read the test images alone, if there are any.

    Raises:
        DatasetError: The file cannot be read, or an entry is missing or something else.
    """
    files = ArrayFiles(
        path, path.stem, npz_entries(path), lambda names: read_npz_arrays(path, names)
    )
    return read_array_data(files, options, test_only=test_only)


def read_npz_arrays(
    path: Path, names: Sequence[str] = (), *, optional: Sequence[str] = ()
) -> dict[str, Array]:
    """Read the named arrays of a file, and those of the optional ones that are there.

    Raises:
        DatasetError: The file cannot be read, is too large, or lacks one of ``names``.
    """
    with located(path), _readable(), zipfile.ZipFile(path) as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [name for name in names if name not in entries]
        if missing:
            raise DatasetError(f"expected {', '.join(names)}, missing {', '.join(missing)}")
        wanted = {name: entries[name] for name in (*names, *optional) if name in entries}
        size = sum(entry.file_size for entry in wanted.values())
        if size > MAX_NPZ_BYTES:
            raise DatasetError(f"unpacks to {size} bytes, the most that is read is {MAX_NPZ_BYTES}")
        return {name: _read_array(archive, entry) for name, entry in wanted.items()}


def npz_entries(path: Path) -> tuple[str, ...]:
    """Return what the arrays of a file are called.

    Raises:
        DatasetError: The file cannot be read.
    """
    with located(path), _readable(), zipfile.ZipFile(path) as archive:
        return tuple(info.filename.removesuffix(".npy") for info in archive.infolist())


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    with located(entry.filename):
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
