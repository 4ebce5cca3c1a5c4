"""Images on disk: an array in a file, of which only those rows are read that are asked for.

They are read, not mapped into memory: what is mapped counts as the process's own, and a file that
is cut off while it is mapped ends the process without a word.
"""

import math
import os
import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.errors import DatasetError
from mlpserve.datasets.progress import progress

Array: TypeAlias = npt.NDArray[Any]
Rows: TypeAlias = npt.NDArray[np.int64]

# What has more stays on disk, and is shuffled in windows.
SMALL_BYTES: Final = 512 * 1024**2
# Rows that lie within so much are read in one go, with what is between them.
READ_BYTES: Final = 256 * 1024
_CHUNK_BYTES: Final = 8 * 1024**2  # of ``chunks``


class DiskImages:
    """(N, ...) images in a file, which look like an array that can only be indexed by rows.

    Many threads may read at once. The file must not change meanwhile; it may be renamed or removed.

    Attributes:
        dtype: What they are read as: uint8, int32 or float32.
        shape: (N, ...), the number of images first.
    """

    def __init__(
        self,
        path: Path,
        *,
        offset: int,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
    ) -> None:
        """Open a file.

        Args:
            path: The file.
            offset: Where in it the first image begins, in bytes.
            shape: (N, ...), in C order.
            dtype: That of the values in the file, of whichever byte order; see ``astype``.

        Raises:
            DatasetError: The file cannot be opened.
        """
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._file = _RowFile(path, offset, shape[1:], self.dtype)
        self._rows: Rows | None = None  # those of the file that these are, rising; None for all

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Return the number of dimensions, N's among them."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Return the number of values of all images."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Return how many bytes all images would take in memory."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: int | slice | npt.NDArray[Any]) -> Array:
        """Return one image, or the images of a slice or of (M,) indices, in memory.

        Raises:
            DatasetError: The file cannot be read.
            IndexError: There is no such image.
        """
        if isinstance(key, slice) and key.step in (None, 1):
            start, stop, _ = key.indices(len(self))
            images: Array = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
            self.read_into(images, start)
            return images
        indices = np.arange(len(self))[key]
        return self._at(indices) if indices.ndim else self._at(indices[np.newaxis])[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:  # noqa: FBT001 - as NumPy calls it
        """Return all images, in memory; see ``numpy.asarray``."""
        if copy is False:
            raise ValueError("images on disk are copied into memory, whatever becomes of them")
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def read_into(self, images: Array, start: int) -> None:
        """Fill an array with as many images as it holds, from number ``start``.

        Args:
            images: (M, ...) of ``dtype``, C-contiguous.
            start: The first one, at most N - M.

        Raises:
            DatasetError: The file cannot be read.
        """
        stop = start + len(images)
        if self._rows is None and self._file.dtype == self.dtype:
            self._file.read(start, images)
        elif self._rows is None:
            self._gather(np.arange(start, stop), images)
        else:
            self._gather(self._rows[start:stop], images)

    def select(self, rows: Rows) -> "DiskImages":
        """Return some of the images, still on disk.

        Args:
            rows: (M,) their indices, rising.
        """
        rows = rows if self._rows is None else self._rows[rows]
        return self._like(shape=(len(rows), *self.shape[1:]), rows=rows)

    def astype(self, dtype: npt.DTypeLike, *, copy: bool = False) -> "DiskImages":
        """Return the same images, still on disk, which are converted as they are read."""
        del copy  # nothing is held that could be shared
        return self._like(dtype=np.dtype(dtype))

    def reshape(self, count: int, *shape: int) -> "DiskImages":
        """Return the same images, still on disk, each in another shape of as many values.

        Args:
            count: N, for the images stay what they are.
            *shape: The new shape of one.
        """
        if count != len(self) or math.prod(shape) != math.prod(self.shape[1:]):
            raise ValueError(f"cannot reshape images of shape {self.shape} into {(count, *shape)}")
        return self._like(shape=(count, *shape))

    def min(self) -> np.generic:
        """Return the lowest value of all images, or NaN if there is one; reads them all."""
        return self._limits[0]

    def max(self) -> np.generic:
        """Return the highest value, or NaN; see ``min``."""
        return self._limits[1]

    def is_finite(self) -> bool:
        """Return whether no value is NaN or infinite; reads them all, but those of a file once."""
        if self._file.is_finite:
            return True
        found = bool(np.isfinite(self.min()) and np.isfinite(self.max()))
        if self._rows is None:
            self._file.is_finite = found
        return found

    @cached_property
    def _limits(self) -> tuple[np.generic, np.generic]:
        lowest, highest = [], []
        with progress("reading") as note:
            done = 0
            for chunk in chunks(self):
                lowest.append(chunk.min())
                highest.append(chunk.max())
                done += len(chunk)
                note(done, len(self))
        return np.min(lowest), np.max(highest)

    def load(self, title: str) -> Array:
        """Return all images, in memory, and show the progress under a title.

        Raises:
            DatasetError: The file cannot be read.
        """
        images = np.empty(self.shape, self.dtype)
        with progress(title) as note:
            for rows in _pieces(self):
                self.read_into(images[rows], rows.start)
                note(rows.stop, len(self))
        return images

    def _like(
        self,
        *,
        dtype: np.dtype[Any] | None = None,
        shape: tuple[int, ...] | None = None,
        rows: Rows | None = None,
    ) -> "DiskImages":
        """Return images of the same file that differ in what is given."""
        other: DiskImages = object.__new__(DiskImages)
        other.dtype = self.dtype if dtype is None else dtype
        other.shape = self.shape if shape is None else shape
        other._file = self._file
        other._rows = self._rows if rows is None else rows
        return other

    def _at(self, indices: Rows) -> Array:
        rows = indices if self._rows is None else self._rows[indices]
        images = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if (rows[1:] >= rows[:-1]).all():
            self._gather(rows, images)
            return images
        order = np.argsort(rows, kind="stable")
        self._gather(rows[order], images)
        unsorted = np.empty_like(images)
        unsorted[order] = images
        return unsorted

    def _gather(self, rows: Rows, images: Array) -> None:
        """Fill an array with rows of the file, which rise."""
        file = self._file
        at_once = max(1, READ_BYTES // file.row_bytes)
        scratch = np.empty((at_once, *images.shape[1:]), file.dtype)
        start = 0
        while start < len(rows):
            first = int(rows[start])
            stop = start + int(np.searchsorted(rows[start : start + at_once], first + at_once))
            read = scratch[: int(rows[stop - 1]) - first + 1]
            file.read(first, read)
            if file.dtype == self.dtype:
                places = rows[start:stop] - first
                np.take(read, places, axis=0, out=images[start:stop], mode="clip")
            else:
                images[start:stop] = read[rows[start:stop] - first]
            start = stop


class _RowFile:
    """An open file that holds rows of one size, one after the other."""

    def __init__(
        self, path: Path, offset: int, row_shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.dtype = dtype
        self.row_bytes = math.prod(row_shape) * dtype.itemsize
        self.is_finite = dtype.kind != "f"  # as far as is known
        self._path = path
        self._offset = offset
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._cannot_read(error) from error
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, first: int, rows: Array) -> None:
        """Fill a C-contiguous array with rows from number ``first``."""
        place = self._offset + first * self.row_bytes
        rest = rows.reshape(-1).view(np.uint8).data
        while rest:
            try:
                count = os.preadv(self._descriptor, [rest], place)
            except OSError as error:
                raise self._cannot_read(error) from error
            if count == 0:
                raise DatasetError(
                    f"{self._path}: expected {len(rest)} more bytes at byte {place}, but the file "
                    "ends there; leave it as it is while it is read"
                )
            rest, place = rest[count:], place + count

    def _cannot_read(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self._path}: cannot be read: {error.strerror or error}")


def selected(images: Array, rows: Rows) -> Array:
    """Return some images: in memory, or on disk where these are and many are selected.

    Args:
        images: (N, ...) in memory or on disk.
        rows: (M,) the indices of those that are wanted, rising.

    Raises:
        DatasetError: A file cannot be read.
    """
    if not isinstance(images, DiskImages):
        return images[rows]
    some = images.select(rows)
    return cast("Array", some) if some.nbytes > SMALL_BYTES else some.load("reading")


def chunks(images: Array | DiskImages) -> Iterator[Array]:
    """Yield all images, some megabytes at a time.

    Raises:
        DatasetError: A file cannot be read.
    """
    for rows in _pieces(images):
        yield images[rows]


def _pieces(images: Array | DiskImages) -> Iterator[slice]:
    image_bytes = max(1, math.prod(images.shape[1:]) * images.dtype.itemsize)
    at_once = max(1, _CHUNK_BYTES // image_bytes)
    for start in range(0, len(images), at_once):
        yield slice(start, min(start + at_once, len(images)))
