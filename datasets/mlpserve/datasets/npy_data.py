"""Data sets in files of one array each, in a folder: ``.npy``, which may be larger than memory.

``x_train.npy`` holds the array ``x_train``, and so on; ``array_data`` knows the names. KMNIST is
published so in ``.npz`` files, ``kmnist-train-imgs.npz`` and so on, in each of them an ``arr_0``.
"""

from pathlib import Path
from typing import Final

from mlpserve.datasets.array_data import Array, ArrayFiles, is_image_name, read_array_data
from mlpserve.datasets.errors import DatasetError
from mlpserve.datasets.npy import read_npy
from mlpserve.datasets.npz import npz_entries, read_npz_arrays
from mlpserve.datasets.raw import RawData, ReadOptions

_NPY: Final = ".npy"
_NPZ: Final = ".npz"
_ONLY_ENTRY: Final = "arr_0"  # what numpy.savez calls an array without a name


def is_npy_data(path: Path) -> bool:
    """Return whether a path is a folder with a file of images alone, or such a file."""
    files = path.iterdir() if path.is_dir() else [path]
    return any(is_image_name(file.stem) and _is_one_array(file) for file in files)


def read_npy_data(path: Path, options: ReadOptions, *, test_only: bool) -> RawData:
    """Read images and labels; the data is called like the folder.

    Args:
        path: The folder, or one of the files in it.
        options: What is said about the images.
        test_only: Whether to read the test images alone, if there are any.

    Raises:
        DatasetError: A file cannot be read, or is missing or something else.
    """
    folder = path if path.is_dir() else path.parent
    places = {file.stem: file for file in sorted(folder.iterdir()) if _is_one_array(file)}
    files = ArrayFiles(
        folder,
        folder.resolve().name,
        tuple(places),
        lambda wanted: {name: _read(places[name]) for name in wanted},
    )
    return read_array_data(files, options, test_only=test_only)


def _is_one_array(file: Path) -> bool:
    if file.suffix != _NPZ:
        return file.suffix == _NPY
    try:
        return npz_entries(file) == (_ONLY_ENTRY,)
    except DatasetError:
        return False


def _read(file: Path) -> Array:
    return (
        read_npy(file)
        if file.suffix == _NPY
        else read_npz_arrays(file, (_ONLY_ENTRY,))[_ONLY_ENTRY]
    )
