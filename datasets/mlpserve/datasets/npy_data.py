"""Data sets in ``.npy`` files of a folder, which may be larger than memory.

``x_train.npy`` holds the array ``x_train``, and so on; ``array_data`` knows the names.
"""

from pathlib import Path
from typing import Final

from mlpserve.datasets.array_data import ArrayFiles, is_image_name, read_array_data
from mlpserve.datasets.npy import read_npy
from mlpserve.datasets.raw import RawData, ReadOptions

_ENDING: Final = ".npy"


def is_npy_data(path: Path) -> bool:
    """Return whether a path is a folder with images in an ``.npy`` file, or such a file."""
    files = path.iterdir() if path.is_dir() else [path]
    return any(file.suffix == _ENDING and is_image_name(file.stem) for file in files)


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
    names = sorted(file.stem for file in folder.iterdir() if file.suffix == _ENDING)
    files = ArrayFiles(
        folder,
        folder.resolve().name,
        names,
        lambda wanted: {name: read_npy(folder / f"{name}{_ENDING}") for name in wanted},
    )
    return read_array_data(files, options, test_only=test_only)
