"""Data sets in folders of pictures: one folder for each class, called like it.

``train/`` and ``test/`` may stand above the classes. Pictures of any size are brought to one.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.class_labels import natural_key
from mlpserve.datasets.dataset import DatasetError
from mlpserve.datasets.pictures import ENDINGS, PictureError, decode_picture, picture_shape
from mlpserve.datasets.progress import progress
from mlpserve.datasets.raw import (
    RawData,
    RawSplit,
    ReadOptions,
    arranged,
    joined,
    narrowed,
    split_name,
    splits_of,
)

logger = logging.getLogger(__name__)

_MAX_SIDE: Final = 256  # of pictures that are learned from in the size that they have
_MAX_NAMED: Final = 20
_WHITE_16_PER_WHITE_8: Final = 257

# The pictures of each class.
_Classes = Mapping[str, Sequence[Path]]


def is_picture_data(path: Path) -> bool:
    """Return whether a path is a folder with folders of pictures."""
    return path.is_dir() and any(any(_pictures(folder)) for folder in _folders(path))


def read_picture_data(path: Path, options: ReadOptions, *, test_only: bool) -> RawData:
    """Read pictures and their classes; the data is called like the folder.

    Args:
        path: The folder.
        options: The size that all are brought to, and what becomes of those that are damaged.
        test_only: Whether to read the test images alone, if there are any.

    Raises:
        DatasetError: Pictures cannot be read, or they are of different sizes and none was given.
    """
    found = _splits(path)
    names = sorted({name for classes in found.values() for name in classes}, key=natural_key)
    train_classes, test_classes = splits_of(found)
    if test_only and test_classes is not None:
        train_classes = []
    reader = _Reader(path, names, options, options.shape or _common_shape(path, found))
    train = [reader.read(classes) for classes in train_classes]
    test = None if test_classes is None else reader.read(test_classes)
    reader.end()
    return RawData(
        name=path.resolve().name,
        train=joined(train) if train else None,
        test=test,
        label_texts=tuple(names),
        class_labels=tuple(names),
    )


class _Reader:
    """Reads the pictures of each split, and notes which of them cannot be read."""

    def __init__(
        self, folder: Path, names: Sequence[str], options: ReadOptions, shape: tuple[int, ...]
    ) -> None:
        self._folder = folder
        self._names = names
        self._options = options
        self._shape = shape
        self._unreadable: list[str] = []

    def read(self, classes: _Classes) -> RawSplit:
        """Return the pictures of a split."""
        files = [(path, name) for name in self._names for path in classes.get(name, ())]
        pictures, codes = [], []
        numbers = {name: number for number, name in enumerate(self._names)}
        pool = ThreadPoolExecutor()
        try:
            with progress(f"reading pictures of {self._folder.name}", "pictures") as note:
                for done, picture in enumerate(pool.map(self._decode, (path for path, _ in files))):
                    if picture is not None:
                        pictures.append(picture)
                        codes.append(numbers[files[done][1]])
                    note(done + 1, len(files))
        finally:  # whoever interrupts does not wait for all that were not begun
            pool.shutdown(cancel_futures=True)
        if not pictures:
            self.end()
            raise DatasetError(f"{self._folder}: expected pictures that can be read, got none")
        images = arranged(narrowed(_stacked(pictures)), self._options, where=str(self._folder))
        return RawSplit(images, np.array(codes, np.int64))

    def end(self) -> None:
        """Name the pictures that could not be read.

        Raises:
            DatasetError: There are some, and they are not to be left out.
        """
        count = len(self._unreadable)
        if not count:
            return
        named = "; ".join(sorted(self._unreadable)[:_MAX_NAMED])
        more = f"; and {count - _MAX_NAMED} more" if count > _MAX_NAMED else ""
        if not self._options.skip_unreadable:
            raise DatasetError(
                f"{count} of the pictures cannot be read ({named}{more}); mend or remove them, or "
                "leave them out with --skip-unreadable"
            )
        logger.warning("%d pictures cannot be read, and are left out: %s%s", count, named, more)

    def _decode(self, path: Path) -> npt.NDArray[Any] | None:
        try:
            return decode_picture(path, self._shape, where=str(path))
        except PictureError as error:
            self._unreadable.append(str(error))
            return None


def _stacked(pictures: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return pictures as one array; if one has 16 bits, the white of all is that of 16."""
    if len({picture.dtype for picture in pictures}) > 1:
        wide = np.uint16
        pictures = [
            picture if picture.dtype == wide else picture.astype(wide) * wide(_WHITE_16_PER_WHITE_8)
            for picture in pictures
        ]
    return np.stack(pictures)


def _splits(path: Path) -> dict[str, _Classes]:
    """Return the classes of each split: of train/ and test/, or of the folder itself."""
    splits = {split_name(folder.name): _classes(folder) for folder in _folders(path)}
    splits = {split: classes for split, classes in splits.items() if split and classes}
    return splits or {"": _classes(path)}


def _classes(path: Path) -> _Classes:
    found = {folder.name: sorted(_pictures(folder)) for folder in _folders(path)}
    return {name: pictures for name, pictures in found.items() if pictures}


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(
            entry
            for entry in path.iterdir()
            if entry.is_dir() and not entry.name.startswith((".", "__"))
        )
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error


def _pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures in a folder, and in those below it."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                yield Path(place, name)


def _common_shape(path: Path, found: Mapping[str, _Classes]) -> tuple[int, ...]:
    """Return the size that all pictures have.

    Raises:
        DatasetError: They differ, or are so large that nobody means to learn from each pixel.
    """
    sizes: dict[tuple[int, int], Path] = {}
    for classes in found.values():
        for pictures in classes.values():
            for picture in pictures:
                with contextlib.suppress(PictureError):  # which is said when all are read
                    sizes.setdefault(picture_shape(picture, where=str(picture)), picture)
    if len(sizes) == 1 and max(max(size) for size in sizes) <= _MAX_SIDE:
        return next(iter(sizes))
    if not sizes:
        return 1, 1  # all are damaged, which is said when they are read
    shown = " and ".join(
        f"{h}x{w} ({where})" for (h, w), where in sorted(sizes.items())[:: len(sizes) - 1 or 1]
    )
    raise DatasetError(
        f"{path}: expected pictures of one size, of at most {_MAX_SIDE}x{_MAX_SIDE}, got {shown}; "
        "say with --shape to what they are brought, as in --shape 32x32"
    )
