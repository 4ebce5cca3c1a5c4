"""Tables of images: one row an image, as CSV, Parquet and Arrow files have them.

``open_table`` finds out which columns are the pixels, the label and the id; ``Table.chunks`` then
reads the rows, some megabytes at a time, however many there are. Needs pyarrow, the extra
``tables``, which is imported when a table is opened.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import DatasetError
from mlpserve.datasets.pictures import decode_picture, picture_shape
from mlpserve.datasets.table_columns import (
    LABEL_NAMES,
    Columns,
    arrow_types,
    find_columns,
    find_label_column,
    is_list,
    is_number,
    is_picture,
    shown,
)
from mlpserve.datasets.table_file import TableFile, pyarrow
from mlpserve.datasets.table_files import ENDINGS, open_table_file

Array: TypeAlias = npt.NDArray[Any]

# Of the images in a chunk, narrowest first.
_DTYPES: Final = (np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.float32))
_BYTE: Final = 255


class Chunk(NamedTuple):
    """Some rows of a table, in its order.

    Attributes:
        images: (n, D) uint8, int32 or float32, the values as the file has them. The dtype is the
            narrowest of these that holds all values so far, so it may widen from one chunk to the
            next, and never narrows.
        labels: (n,) text as the file has it, or what the file says that its number stands for;
            None if the table has no labels.
        ids: (n,) text; None if it has no ids.
    """

    images: Array
    labels: npt.NDArray[np.str_] | None
    ids: npt.NDArray[np.str_] | None


class Table:
    """A table in one file, or in several that follow each other; made by ``open_table``.

    Attributes:
        paths: The files.
        columns: Which of their columns are read.
        column_names: What the columns are called; "" where the file has no header.
        shape: Of one image, where the file says so: that of its encoded pictures; None otherwise.
        rows: How many rows there are; None where only reading tells, as for CSV.
        class_names: What the labels 0, 1, ... stand for, where the file says so; None otherwise.
    """

    def __init__(
        self, files: Sequence[TableFile], columns: Columns, shape: tuple[int, ...] | None
    ) -> None:
        self._files = files
        self._reading = files[0]
        self._dtype: np.dtype[Any] = np.dtype(np.uint8)
        self.columns = columns
        self.shape = shape
        self.paths = tuple(file.path for file in files)
        self.column_names = files[0].names
        counts = [file.rows for file in files]
        known = [count for count in counts if count is not None]
        self.rows = sum(known) if len(known) == len(counts) else None
        self.class_names = None if columns.label is None else files[0].class_names(columns.label)

    @property
    def fraction_read(self) -> float:
        """Return how much of the files the latest ``chunks`` has read, 0 to 1, for progress."""
        sizes = [path.stat().st_size for path in self.paths]
        before = self.paths.index(self._reading.path)
        return min(1.0, (sum(sizes[:before]) + self._reading.bytes_read) / max(1, sum(sizes)))

    def chunks(self, part: range | None = None) -> Iterator[Chunk]:
        """Read all rows from the first on, some megabytes at a time.

        Args:
            part: Of one file, one of its ``TableFile.parts``, to read no other rows.

        Raises:
            DatasetError: A file cannot be read, a value is missing or no number, a row is of
                another length, or a picture is damaged.
        """
        self._dtype = np.dtype(np.uint8)
        first = rows = 0 if part is None else part.start
        for file in self._files:
            self._reading = file
            for arrays in file.batches(self._wanted(), self._types(file), part):
                if len(arrays[0]):
                    yield self._chunk(file, arrays, rows)
                    rows += len(arrays[0])
        if rows == first:
            raise DatasetError(f"{self.paths[0]}: expected rows, got none")

    def _wanted(self) -> list[int]:
        extra = [index for index in (self.columns.label, self.columns.id) if index is not None]
        return [*self.columns.images, *extra]

    def _types(self, file: TableFile) -> dict[int, Any]:
        arrow = pyarrow(file.path)
        found = file.types()
        types = {
            index: arrow.float32() if arrow.types.is_floating(found[index]) else arrow.int32()
            for index in self.columns.images
        }
        extra = (self.columns.label, self.columns.id)
        return types | {index: arrow.string() for index in extra if index is not None}

    def _chunk(self, file: TableFile, arrays: list[Any], rows_before: int) -> Chunk:
        width = len(self.columns.images)
        place = _Place(file.path, rows_before)
        images = self._images(arrays[:width], place)
        extra = iter(arrays[width:])
        labels = None
        if self.columns.label is not None:
            labels = _texts(next(extra), place.column(file, self.columns.label), self.class_names)
        ids = None
        if self.columns.id is not None:
            ids = np.array(
                ["" if value is None else str(value) for value in next(extra).to_pylist()]
            )
        return Chunk(images, labels, ids)

    def _images(self, arrays: list[Any], place: "_Place") -> Array:
        if len(arrays) == 1 and is_picture(arrays[0].type):
            return self._pictures(arrays[0], place)
        if len(arrays) == 1 and is_list(arrays[0].type):
            values = _list_values(arrays[0], place)
        else:
            values = np.empty((len(arrays), len(arrays[0])), _common(arrays))
            for index, (array, row) in enumerate(zip(arrays, values, strict=True)):
                if array.null_count:
                    _refuse_null(array, place.column(self._reading, self.columns.images[index]))
                row[:] = array.to_numpy(zero_copy_only=False)
            values = values.T
        return self._narrowed(values)

    def _narrowed(self, values: Array) -> Array:
        """Return values in the narrowest of the dtypes that holds them and all before."""
        if values.dtype.kind == "f":
            needed = _DTYPES.index(np.dtype(np.float32))
        elif values.dtype in (np.uint8, np.bool_) or (values.min() >= 0 and values.max() <= _BYTE):
            needed = _DTYPES.index(np.dtype(np.uint8))
        else:
            needed = _DTYPES.index(np.dtype(np.int32))
        self._dtype = _DTYPES[max(needed, _DTYPES.index(self._dtype))]
        return np.ascontiguousarray(values, self._dtype)

    def _pictures(self, array: Any, place: "_Place") -> Array:  # noqa: ANN401 - pyarrow has no types
        pictures = []
        for row, content in enumerate(_contents(array), place.rows_before + 1):
            where = f"{place.path}: row {row}"
            if content is None or self.shape is None:
                raise DatasetError(f"{where}: expected a picture, got none")
            pictures.append(decode_picture(content, self.shape, where=where).reshape(-1))
        return self._narrowed(np.stack(pictures))


def is_table(path: Path) -> bool:
    """Return whether a file's name is that of a table."""
    return path.name.lower().endswith(ENDINGS)


def open_table(
    paths: Path | Sequence[Path],
    *,
    label_column: str | None = None,
    id_column: str | None = None,
    needs_label: bool = False,
    values: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> Table:
    """Open a table, and find out what its columns are.

    The label is the column called label, class, target, y or digit; without a header, the first
    column, unless the others would then be too few. Columns called id, index, filename and the like
    identify a row. All other columns with numbers are the image, in their order, or else a single
    column holds it as a list, or as an encoded picture.

    Args:
        paths: The file, or files with the same columns.
        label_column: The label's column: its name, or, without a header, its place from 0 (from
            the end if negative).
        id_column: The name of the column that identifies a row.
        needs_label: Whether a table without labels is an error.
        values: How many values an image has, if that is known: tells whether a table without a
            header has labels.
        shape: The size that encoded pictures are brought to, (height, width) for grey or (height,
            width, channels); that of the first picture if None.

    Raises:
        DatasetError: pyarrow is missing, a file cannot be read, or it is not clear what its columns
            are; the message says which flag decides.
    """
    files = [open_table_file(path) for path in ([paths] if isinstance(paths, Path) else paths)]
    first = files[0]
    for file in files[1:]:
        if file.names != first.names:
            raise DatasetError(f"{file.path}: expected the columns of {first.path}, got others")
    types = first.types()
    label = find_label_column(first, label_column, values=values)
    if label is None and needs_label:
        raise DatasetError(
            f"{first.path}: expected a column with the label, called {', '.join(LABEL_NAMES[:-1])} "
            f"or {LABEL_NAMES[-1]}, got the columns {shown(first.names)}; name it with "
            "--label-column"
        )
    columns = find_columns(first, types, label, id_column)
    if len(columns.images) == 1 and is_picture(types[columns.images[0]]):
        shape = shape or _picture_shape(first, columns.images[0])
    else:
        shape = None
    return Table(files, columns, shape)


@dataclass(frozen=True)
class _Place:
    """Where a chunk, and a column of it, is from; for messages."""

    path: Path
    rows_before: int
    name: str = ""

    def column(self, file: TableFile, index: int) -> "_Place":
        return _Place(self.path, self.rows_before, f"column {file.names[index] or index + 1}")


def _common(arrays: list[Any]) -> np.dtype[Any]:
    kinds = {str(array.type) for array in arrays}
    if any(kind in {"float", "double", "halffloat"} for kind in kinds):
        return np.dtype(np.float32)
    return np.dtype(np.uint8 if kinds <= {"uint8", "bool"} else np.int64)


def _list_values(array: Any, place: _Place) -> Array:  # noqa: ANN401 - pyarrow has no types
    """Return (n, D) values of n lists, however deeply they are nested."""
    flat = getattr(array, "storage", array)
    while is_list(flat.type):
        if flat.null_count:
            _refuse_null(flat, place)
        lengths = np.unique(flat.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise DatasetError(
                f"{place.path}: expected lists of one length, got {lengths[0]} to {lengths[-1]}"
            )
        flat = flat.flatten()
    if flat.null_count or not is_number(flat.type):
        raise DatasetError(f"{place.path}: expected lists of numbers, got {flat.type} or gaps")
    return np.asarray(flat.to_numpy(zero_copy_only=False).reshape(len(array), -1))


def _contents(array: Any) -> Iterator[bytes | None]:  # noqa: ANN401 - pyarrow has no types
    column = array.field("bytes") if arrow_types().is_struct(array.type) else array
    for value in column:
        yield value.as_py()


def _picture_shape(file: TableFile, column: int) -> tuple[int, ...]:
    for arrays in file.batches([column], {}):
        for content in _contents(arrays[0]):
            if content is not None:
                return picture_shape(content, where=f"{file.path}: row 1")
    raise DatasetError(f"{file.path}: expected pictures, got none")


def _texts(array: Any, place: _Place, names: tuple[str, ...] | None) -> npt.NDArray[np.str_]:  # noqa: ANN401
    if array.null_count:
        _refuse_null(array, place)
    values = array.to_pylist()
    if names is None:
        return np.array([str(value) for value in values])
    for row, value in enumerate(values):
        if not 0 <= value < len(names):
            raise DatasetError(
                f"{place.path}: row {place.rows_before + row + 1}: {place.name}: expected a class "
                f"from 0 to {len(names) - 1}, got {value}"
            )
    return np.array([names[value] for value in values])


def _refuse_null(array: Any, place: _Place) -> None:  # noqa: ANN401 - pyarrow has no types
    row = place.rows_before + array.is_null().to_pylist().index(True) + 1
    what = f" {place.name}:" if place.name else ""
    raise DatasetError(f"{place.path}: row {row}:{what} expected a value, got none")
