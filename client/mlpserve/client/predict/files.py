"""Files of images: tables, .npy, .npz, IDX, PNG and JPEG, each a source of batches.

A format is a line of ``FORMATS`` and its reader. It is told by how the file begins, not by its
name; but for tables.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.client.predict.batches import MAX_ROWS, Rows, Wanted
from mlpserve.client.predict.pictures import PICTURE_ENDINGS, Look, read_picture
from mlpserve.datasets import DatasetError
from mlpserve.datasets.class_labels import plain_label
from mlpserve.datasets.idx import read_idx
from mlpserve.datasets.npz import read_npz_arrays
from mlpserve.datasets.table_files import open_table_file
from mlpserve.datasets.tables import is_table, open_table

_MAX_START_BYTES: Final = 8
_NPZ_ENTRIES: Final = ("images", "x_test")


@dataclass(eq=False)
class ImageFile:
    """A file of images; a source, see ``mlpserve.client.predict.batches``.

    Attributes:
        path: Where it is read from.
        name: What its rows are said to be from, and messages say.
        group: What named it: itself, or a folder.
        look: How pictures look.
        part: The rows of the file that it is, one of ``parts``; None for all.
        guess: How many images it has, as far as the part that was read lets guess.
    """

    path: Path
    name: str
    group: str
    look: Look = field(default_factory=Look)
    part: range | None = None
    guess: int | None = None

    @property
    def first_row(self) -> int:
        """See ``Source``."""
        return self.part.start if self.part else 0

    @property
    def is_picture(self) -> bool:
        """Return whether it is one picture, by its name."""
        return self.path.name.lower().endswith(PICTURE_ENDINGS)

    def parts(self, max_rows: int) -> "list[ImageFile]":
        """Return it in parts that can be read apart, or itself alone where it has none.

        Args:
            max_rows: The most rows of one, but where the file itself keeps more together.
        """
        if self.is_picture:
            return [self]
        try:
            ranges = _format_of(self.path).parts(self.path, max_rows)
        except DatasetError:  # which reading it will tell
            return [self]
        return [replace(self, part=part) for part in ranges] if len(ranges) > 1 else [self]

    def read(self, wanted: Wanted) -> Iterator[Rows]:
        """See ``Source.read``."""
        try:
            yield from _format_of(self.path).read(self, wanted)
        except DatasetError as error:
            # What came through a pipe was kept elsewhere meanwhile.
            raise DatasetError(str(error).replace(f"{self.path}", self.name, 1)) from error

    def count(self) -> int | None:
        """See ``Source.count``."""
        if self.is_picture:
            return 1
        if self.part is not None:
            return len(self.part)
        try:
            count = _format_of(self.path).count(self.path)
        except DatasetError:
            return 0
        return self.guess if count is None else count

    def fingerprint(self) -> str:
        """Return its size and when it was changed."""
        try:
            status = self.path.stat()
        except OSError:
            return "missing"
        return f"{status.st_size} bytes of {status.st_mtime_ns}"


def _unknown(path: Path) -> int | None:  # noqa: ARG001 - as ``FileFormat`` has it
    return None


def _no_parts(path: Path, max_rows: int) -> list[range]:  # noqa: ARG001 - as ``FileFormat`` has it
    return []


@dataclass(frozen=True)
class FileFormat:
    """A format of files that hold images.

    Attributes:
        name: What messages call it.
        starts: How such a file may begin.
        read: Yields its images.
        count: Returns how many there are, where its header says so.
        parts: Returns ranges of at most so many rows that can be read apart; none where it is read
            from its beginning only.
    """

    name: str
    starts: tuple[bytes, ...]
    read: Callable[[ImageFile, Wanted], Iterator[Rows]]
    count: Callable[[Path], int | None] = _unknown
    parts: Callable[[Path, int], list[range]] = _no_parts


def _format_of(path: Path) -> FileFormat:
    try:
        with path.open("rb") as file:
            begin = file.read(_MAX_START_BYTES)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    if is_table(path):
        return TABLES
    for form in FORMATS:
        if begin.startswith(form.starts):
            return form
    raise DatasetError(f"{path}: expected {ACCEPTED}, but it begins with {begin!r}")


def _of_array(
    load: Callable[[Path], npt.NDArray[Any]],
) -> Callable[[ImageFile, Wanted], Iterator[Rows]]:
    """Return a reader of files with one array; one of a single image's shape is that image."""

    def read(file: ImageFile, wanted: Wanted) -> Iterator[Rows]:
        images = load(file.path)
        if images.shape == wanted.shape:
            images = images[np.newaxis]
        if images.ndim == 0 or not images.size:
            raise DatasetError(
                f"{file.path}: expected (count, ...) images, at least one, got shape {images.shape}"
            )
        rows = file.part or range(len(images))
        for start in rows[::MAX_ROWS]:
            yield Rows(_part(images, start, min(start + MAX_ROWS, rows.stop)))

    return read


def _part(images: npt.NDArray[Any], start: int, stop: int) -> npt.NDArray[Any]:
    """Return some rows; of a file that is mapped, a copy that leaves no page of it in memory."""
    if not isinstance(images, np.memmap) or not images.flags.c_contiguous:
        return images[start:stop]
    shape = (stop - start, *images.shape[1:])
    offset = images.offset + start * images[0].nbytes
    return np.array(np.memmap(str(images.filename), images.dtype, "r", offset, shape))


def _read_npy(path: Path) -> npt.NDArray[Any]:
    try:
        # Mapped, not read: so the sizes in the header are held against the file's before anything
        # is allocated.
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    # NumPy answers a damaged header with a dozen exceptions, and promises no list of them.
    except Exception as error:
        raise DatasetError(f"{path}: expected an .npy file, but {error}") from error
    return mapped


def _count_npy(path: Path) -> int:
    shape = _read_npy(path).shape
    return shape[0] if shape else 0


def _npy_parts(path: Path, max_rows: int) -> list[range]:
    shape = _read_npy(path).shape
    if len(shape) < 2:  # noqa: PLR2004 - it is one flat image, if any
        return []
    rows = range(shape[0])
    return [rows[start : start + max_rows] for start in rows[::max_rows]]


def _read_npz(path: Path) -> npt.NDArray[Any]:
    arrays = read_npz_arrays(path, optional=_NPZ_ENTRIES)
    for name in _NPZ_ENTRIES:
        if name in arrays:
            return arrays[name]
    raise DatasetError(f"{path}: expected an entry {' or '.join(_NPZ_ENTRIES)}")


def _read_picture(file: ImageFile, wanted: Wanted) -> Iterator[Rows]:
    image, warning = read_picture(file.path, wanted.shape, file.look, wanted.value_range)
    yield Rows(image[np.newaxis], warnings=[warning], is_picture=True)


def _one(path: Path) -> int:  # noqa: ARG001 - as ``FileFormat`` has it
    return 1


def _read_table(file: ImageFile, wanted: Wanted) -> Iterator[Rows]:
    table = open_table(
        file.path,
        label_column=wanted.label_column,
        id_column=wanted.id_column,
        values=math.prod(wanted.shape),
        shape=wanted.shape,
    )
    rows = 0
    for chunk in table.chunks(file.part):
        labels = None if chunk.labels is None else _class_labels(file, chunk.labels, wanted)
        ids = chunk.ids.tolist() if wanted.id_column and chunk.ids is not None else None
        yield Rows(chunk.images, labels, ids)
        rows += len(chunk.images)
        file.guess = round(rows / max(table.fraction_read, 1e-9))


def _class_labels(file: ImageFile, labels: npt.NDArray[np.str_], wanted: Wanted) -> list[str]:
    """Return labels as the model calls its classes, which may be numbers in the table."""
    names = {name: name for name in wanted.class_labels}
    names = {str(number): name for number, name in enumerate(wanted.class_labels)} | names
    found = [names.get(plain_label(label)) for label in labels.tolist()]
    if None in found:
        known = ", ".join(wanted.class_labels)
        raise DatasetError(
            f"{file.path}: expected labels of the model, {known}, got "
            f"{str(labels[found.index(None)])!r}; --label-column names another column"
        )
    return [label for label in found if label is not None]


def _count_table(path: Path) -> int | None:
    return open_table_file(path).rows


def _table_parts(path: Path, max_rows: int) -> list[range]:
    return open_table_file(path).parts(max_rows)


# By the ends of their names: text has no certain beginning.
TABLES: Final = FileFormat("CSV, Parquet, Arrow", (), _read_table, _count_table, _table_parts)
FORMATS: Final = (
    FileFormat(".npy", (b"\x93NUMPY",), _of_array(_read_npy), _count_npy, _npy_parts),
    FileFormat(".npz", (b"PK\x03\x04",), _of_array(_read_npz)),
    FileFormat("IDX", (b"\x1f\x8b", b"\x00\x00\x08"), _of_array(read_idx)),  # gzipped, and not
    FileFormat("PNG", (b"\x89PNG",), _read_picture, _one),
    FileFormat("JPEG", (b"\xff\xd8\xff",), _read_picture, _one),
)
ACCEPTED: Final = (
    f"{', '.join(form.name for form in (TABLES, *FORMATS[:-1]))} or {FORMATS[-1].name}"
)
