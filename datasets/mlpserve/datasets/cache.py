"""Cache of large tables: their images as an array on disk, so that each table is converted once.

The cache of ``train.csv`` is ``train.csv.cache`` beside it, or in the folder of ``--cache-dir``.
It is an ``.npy`` file of the images, and after its end an ``.npz`` file of the rest: labels, names,
and what it is a cache of. It appears whole or not at all, and takes the place of one of an older
table or of other flags. What fits into memory is not cached.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from mlpserve.datasets.disk_images import SMALL_BYTES, Array
from mlpserve.datasets.errors import DatasetError
from mlpserve.datasets.npy import npy_header, read_npy_header
from mlpserve.datasets.progress import progress

logger = logging.getLogger(__name__)

_FORMAT: Final = 1
_KEY: Final = "key"  # in the .npz: what the file is a cache of
_ENDING: Final = ".cache"
_UNFINISHED: Final = ".unfinished"
_WIDENED_VALUES: Final = 1024**2  # at a time


@dataclass(frozen=True, eq=False)
class Contents:
    """The contents of a table.

    Attributes:
        images: (N, ...) in memory, or on disk where they are large.
        rest: All other arrays, by name.
    """

    images: Array
    rest: Mapping[str, Array]


class TableCache:
    """The cache of one table, which may be in several files."""

    def __init__(
        self, sources: Sequence[Path], options: Mapping[str, Any], *, folder: Path | None = None
    ) -> None:
        """Look at the table's files; nothing is read or written yet.

        Args:
            sources: The files.
            options: What else decides what is made of them; JSON values.
            folder: Where the cache is; None for beside the first file.

        Raises:
            DatasetError: A file is not there.
        """
        first = sources[0].absolute()
        self._source = sources[0]
        self._place = first.with_name(f"{first.name}{_ENDING}")
        if folder is not None:
            where = hashlib.sha256(os.fsencode(first)).hexdigest()[:8]
            self._place = folder / f"{first.name}-{where}{_ENDING}"
        try:
            states = [(path.name, path.stat()) for path in sources]
        except OSError as error:
            raise DatasetError(f"{self._source}: cannot be read: {error.strerror}") from error
        files = [[name, state.st_size, state.st_mtime_ns] for name, state in states]
        self._key = json.dumps({"format": _FORMAT, "files": files, "options": options})

    def contents(
        self,
        images: Callable[[], Iterable[Array]],
        rest: Callable[[], Mapping[str, Array]],
        fraction_read: Callable[[], float],
    ) -> Contents:
        """Return what the cache has; where it has nothing, read the table, and cache it if large.

        Args:
            images: Begins to read the table, and yields (n, ...) images. Their dtype may widen
                from one array to the next, and all get that of the last.
            rest: Returns the other arrays, once all images have been read.
            fraction_read: Returns how much of the table was read so far, from 0 to 1.

        Raises:
            DatasetError: The table cannot be read, or the cache cannot be written.
        """
        found = self._found()
        if found is not None:
            return found
        arrays = _noted(images(), f"reading {self._source.name}", fraction_read)
        held: list[Array] = []
        held_bytes = 0
        for array in arrays:
            held.append(array)
            held_bytes += array.nbytes
            if held_bytes > SMALL_BYTES:
                self._write(held, arrays, rest)
                written = self._found()
                if written is None:
                    raise DatasetError(f"{self._place}: was removed while it was written")
                return written
        return Contents(_joined(held), rest())

    def _found(self) -> Contents | None:
        """Return what the cache has of this table, unless that is nothing."""
        try:
            with self._place.open("rb") as file:
                header = read_npy_header(file)
                with zipfile.ZipFile(file) as archive:
                    rest = {
                        name.removesuffix(".npy"): _read_member(archive, name)
                        for name in archive.namelist()
                    }
            if str(rest.pop(_KEY)) != self._key:
                return None
            images = header.images(self._place)
        except FileNotFoundError:
            return None
        # NumPy and zipfile promise no list of what they raise for a damaged file.
        except Exception as error:  # noqa: BLE001 - what cannot be used is made anew
            logger.warning("%s: is not used, because it cannot be read: %s", self._place, error)
            return None
        return Contents(cast("Array", images), rest)

    def _write(
        self, held: list[Array], more: Iterator[Array], rest: Callable[[], Mapping[str, Array]]
    ) -> None:
        try:
            with self._replaced() as file:
                writer = _Writer(file)
                while held:
                    writer.add(held.pop(0))
                for array in more:
                    writer.add(array)
                writer.finish({**rest(), _KEY: np.array(self._key)})
        except OSError as error:
            raise DatasetError(
                f"{self._place}: the images of {self._source.name}, which are too large for "
                f"memory, cannot be written there: {error.strerror or error}; name a folder with "
                "room for them with --cache-dir"
            ) from error

    @contextmanager
    def _replaced(self) -> Iterator[IO[bytes]]:
        """Lend a new file that takes the place of the cache when the block ends."""
        folder = self._place.parent
        folder.mkdir(parents=True, exist_ok=True)
        prefix = f".{self._place.name}-"
        for other in folder.glob(f"{prefix}*{_UNFINISHED}"):
            _remove_unless_written(other)
        temporary = folder / f"{prefix}{secrets.token_hex(8)}{_UNFINISHED}"
        try:
            with temporary.open("x+b") as file:
                _lock(file)
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(self._place)
        finally:
            temporary.unlink(missing_ok=True)


class _Writer:
    """Writes images to a file as they come, and their number when all are there."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    def add(self, images: Array) -> None:
        if not self._shape:
            self._shape, self._dtype = (0, *images.shape[1:]), images.dtype
            self._file.write(npy_header(self._shape, self._dtype))
        elif images.dtype != self._dtype:
            self._widen(images.dtype)
        self._file.write(np.ascontiguousarray(images).data)
        self._shape = (self._shape[0] + len(images), *self._shape[1:])

    def finish(self, rest: Mapping[str, Array]) -> None:
        with zipfile.ZipFile(self._file, "w") as archive:
            for name, array in rest.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        self._file.seek(0)
        self._file.write(npy_header(self._shape, self._dtype))

    def _widen(self, dtype: np.dtype[Any]) -> None:
        """Convert what was written, from its end on, so that nothing is overwritten unread."""
        begin, row = len(npy_header(self._shape, self._dtype)), math.prod(self._shape[1:])
        at_once = max(1, _WIDENED_VALUES // row)
        for stop in range(self._shape[0], 0, -at_once):
            start = max(0, stop - at_once)
            self._file.seek(begin + start * row * self._dtype.itemsize)
            narrow = self._file.read((stop - start) * row * self._dtype.itemsize)
            self._file.seek(begin + start * row * dtype.itemsize)
            self._file.write(np.frombuffer(narrow, self._dtype).astype(dtype).data)
        self._dtype = dtype
        self._file.seek(0, os.SEEK_END)


def _joined(held: list[Array]) -> Array:
    """Return arrays as one, in the dtype of the last; each is given up as soon as it is copied."""
    count = sum(map(len, held))
    joined: Array = np.empty((count, *held[-1].shape[1:]), held[-1].dtype)
    while held:
        last = held.pop()
        joined[count - len(last) : count] = last
        count -= len(last)
    return joined


def _noted(
    arrays: Iterable[Array], title: str, fraction_read: Callable[[], float]
) -> Iterator[Array]:
    """Yield arrays as they come, and show how many images were read of about how many."""
    count = 0
    with progress(title) as note:
        for array in arrays:
            count += len(array)
            fraction = fraction_read()
            note(count, round(count / fraction) if fraction else count)
            yield array


def _read_member(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _lock(file: IO[bytes]) -> None:
    """Mark a file as being written, until it is closed; some file systems cannot."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_unless_written(path: Path) -> None:
    """Remove what a process left that was killed while it wrote."""
    with suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
