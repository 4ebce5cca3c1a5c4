"""Files of tables: CSV, Parquet and Arrow, read by pyarrow in batches of rows.

Knows how each kind of file is opened and streamed, but not what its columns mean; that is the
business of ``tables``.
"""

import csv
import gzip
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from mlpserve.datasets.dataset import DatasetError

CSV_ENDINGS: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET_ENDINGS: Final = (".parquet", ".pq")
ARROW_ENDINGS: Final = (".arrow",)
ENDINGS: Final = (*CSV_ENDINGS, *PARQUET_ENDINGS, *ARROW_ENDINGS)

_BLOCK_BYTES: Final = 4 * 1024**2  # of a CSV file, at least
_BATCH_BYTES: Final = 16 * 1024**2  # of a Parquet file's batch, all columns together
_MAX_HEADER_BYTES: Final = 64 * 1024**2
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ARROW_MAGIC: Final = b"ARROW1"  # of a file; a stream has none
# A number with a decimal comma, as a cell between semicolons or tabs, and alone.
_COMMA: Final = r"\s*([-+]?\d*,\d+(?:e[-+]?\d+)?)\s*"
_COMMA_NUMBER: Final = re.compile(_COMMA, re.IGNORECASE)
_COMMA_CELL: Final = re.compile(f"(?:^|;){_COMMA}(?=;)|;{_COMMA}$", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)


class TableFile(ABC):
    """One file of rows.

    Attributes:
        path: The file.
        names: What its columns are called; "" for all of a CSV file without a header.
        has_header: Whether the names are the file's own.
        rows: How many rows it has; None where only reading tells.
    """

    path: Path
    names: tuple[str, ...]
    has_header: bool = True
    rows: int | None = None

    @abstractmethod
    def types(self) -> list[Any]:
        """Return each column's pyarrow type, as far as the beginning of the file tells."""

    @abstractmethod
    def batches(
        self, columns: list[int], types: dict[int, Any], part: range | None = None
    ) -> Iterator[list[Any]]:
        """Yield the columns, as pyarrow arrays of a bounded number of rows.

        Args:
            columns: Which ones, by their place.
            types: The pyarrow types that the file does not know itself, for CSV.
            part: One of ``parts``; None for all rows.

        Raises:
            DatasetError: The file cannot be read.
        """

    def parts(self, max_rows: int) -> list[range]:  # noqa: ARG002 - as other files have it
        """Return ranges of rows that can be read apart, and together are all rows.

        Args:
            max_rows: The most of one, but where the file itself keeps more together.

        Returns:
            None, if the file is read from its beginning only.
        """
        return []

    def class_names(self, column: int) -> tuple[str, ...] | None:
        """Return what the numbers of a column stand for, if the file says so."""
        del column
        return None

    def decimal_comma(self, column: int) -> str | None:
        """Return a column's first value, where that is a number with a decimal comma."""
        del column
        return None

    @property
    @abstractmethod
    def bytes_read(self) -> int:
        """Return how far into the file its reading has come."""


def open_table_file(path: Path) -> TableFile:
    """Open a file by its ending.

    Raises:
        DatasetError: pyarrow is not installed, or the file cannot be read.
    """
    pyarrow(path)
    name = path.name.lower()
    with readable(path):
        if name.endswith(PARQUET_ENDINGS):
            return _ParquetFile(path)
        if name.endswith(ARROW_ENDINGS):
            return _ArrowFile(path)
        return _CsvFile(path)


def pyarrow(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return pyarrow, with all of its modules that are needed here.

    Raises:
        DatasetError: It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.csv  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"{path}: CSV, Parquet and Arrow need pyarrow: pip install 'mlpserve[tables]'"
        ) from error
    return pa


def decimal_comma_error(path: Path, where: str, found: str) -> DatasetError:
    """Return what is raised of a number with a decimal comma."""
    return DatasetError(
        f"{path}: {where}: expected numbers with a decimal point, got {found!r} with a decimal "
        "comma; write them with points, in pandas by to_csv(decimal='.')"
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow and the system raise into one sentence that names the file."""
    try:
        yield
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    # pyarrow's errors are of half a dozen classes, and of damaged files it promises no list.
    except Exception as error:
        text = " ".join(str(error).split())
        raise DatasetError(f"{path}: cannot be read: {text or type(error).__name__}") from error


class _CsvFile(TableFile):
    """CSV, gzipped or not, with commas, semicolons or tabs; with a header or without.

    Columns are called by their place when pyarrow reads them, because names may be missing, or be
    given twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines_before, line = _first_line(path)
        if found := _COMMA_CELL.search(line):
            raise decimal_comma_error(path, "row 1", (found[1] or found[2]))
        self._delimiter = max(",;\t", key=line.count)
        # No block is too small for a row, whose numbers may be longer than those of the first.
        self._block_bytes = max(_BLOCK_BYTES, 8 * len(line.encode()))
        cells = next(csv.reader([line], delimiter=self._delimiter))
        self.has_header = _is_header(cells)
        self._lines_before = lines_before + self.has_header
        self.names = tuple(
            name.strip().lstrip("#").strip() if self.has_header else "" for name in cells
        )
        self._raw: Any = None

    def types(self) -> list[Any]:
        with readable(self.path):
            try:
                return list(self._open(None, {}).schema.types)
            except pyarrow(self.path).ArrowInvalid as error:
                if "Empty CSV" not in str(error):
                    raise
                raise DatasetError(f"{self.path}: expected rows, got none") from error

    def batches(
        self, columns: list[int], types: dict[int, Any], part: range | None = None
    ) -> Iterator[list[Any]]:
        del part
        arrow = pyarrow(self.path)
        wider = {
            index: arrow.float32() if kind == arrow.int32() else kind
            for index, kind in types.items()
        }
        rows = 0
        # What begins with integers may hold fractions further on; then all is read as floats.
        for attempt in (types, wider):
            skip = rows
            try:
                with readable(self.path):
                    for batch in self._open(columns, attempt):
                        fresh = batch.slice(min(skip, batch.num_rows))
                        skip -= batch.num_rows - fresh.num_rows
                        rows += fresh.num_rows
                        yield list(fresh.columns)
            except DatasetError as error:
                if attempt is types and "conversion error to int32" in str(error):
                    continue
                raise DatasetError(f"{error} (after row {rows})" if rows else str(error)) from error
            return

    def decimal_comma(self, column: int) -> str | None:
        with readable(self.path):
            batch = self._open([column], {}).read_next_batch()
            given = (value for value in batch.column(0).to_pylist() if value is not None)
            first = str(next(given, ""))
        return first if _COMMA_NUMBER.fullmatch(first) else None

    @property
    def bytes_read(self) -> int:
        return 0 if self._raw is None else int(self._raw.tell())

    def _open(self, columns: list[int] | None, types: dict[int, Any]) -> Any:  # noqa: ANN401
        arrow = pyarrow(self.path)
        names = [str(index) for index in range(len(self.names))]
        self._raw = arrow.OSFile(str(self.path), "rb")
        stream = self._raw
        if _is_gzipped(self.path):
            stream = arrow.CompressedInputStream(stream, "gzip")
        return arrow.csv.open_csv(
            stream,
            read_options=arrow.csv.ReadOptions(
                block_size=self._block_bytes,
                column_names=names,
                skip_rows=self._lines_before,
                use_threads=False,
            ),
            parse_options=arrow.csv.ParseOptions(delimiter=self._delimiter),
            convert_options=arrow.csv.ConvertOptions(
                column_types={names[index]: kind for index, kind in types.items()},
                include_columns=None if columns is None else [names[index] for index in columns],
                strings_can_be_null=True,
                null_values=["", "NA", "NaN", "nan", "null", "NULL", "None"],
            ),
        )


class _ColumnarFile(TableFile):
    """A file that knows the types of its columns."""

    _schema: Any

    def types(self) -> list[Any]:
        return list(self._schema.types)

    def class_names(self, column: int) -> tuple[str, ...] | None:
        """Return the names that the library ``datasets`` writes beside a column of classes."""
        try:
            text = (self._schema.metadata or {})[b"huggingface"]
            names = json.loads(text)["info"]["features"][self.names[column]]["names"]
        except (KeyError, TypeError, ValueError):
            return None
        return tuple(str(name) for name in names)


class _ParquetFile(_ColumnarFile):
    def __init__(self, path: Path) -> None:
        self.path = path
        with self._file() as file:
            self._schema = file.schema_arrow
            self.rows = int(file.metadata.num_rows)
            groups = range(file.metadata.num_row_groups)
            self._group_rows = [int(file.metadata.row_group(group).num_rows) for group in groups]
        self.names = tuple(self._schema.names)
        self._read = 0

    def parts(self, max_rows: int) -> list[range]:
        """See ``TableFile.parts``; as many whole row groups as fit."""
        found = [range(0)]
        for count in self._group_rows:
            start = found[-1].stop
            if len(found[-1]) and len(found[-1]) + count > max_rows:
                found.append(range(start, start))
            found[-1] = range(found[-1].start, start + count)
        return found

    def batches(
        self, columns: list[int], types: dict[int, Any], part: range | None = None
    ) -> Iterator[list[Any]]:
        del types
        names = [self.names[index] for index in columns]
        starts = accumulate(self._group_rows, initial=0)
        groups = [
            group
            for group, start in zip(range(len(self._group_rows)), starts, strict=False)
            if part is None or start in part
        ]
        self._read = 0
        with readable(self.path), self._file() as file:
            size = max(1, _BATCH_BYTES // _bytes_per_row(file))
            for batch in file.iter_batches(
                batch_size=size, row_groups=groups, columns=names, use_threads=False
            ):
                self._read += batch.num_rows
                yield [batch.column(name) for name in names]

    @property
    def bytes_read(self) -> int:
        return int(self.path.stat().st_size * self._read / max(1, self.rows or 0))

    def _file(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        return pyarrow(self.path).parquet.ParquetFile(self.path, pre_buffer=False)


class _ArrowFile(_ColumnarFile):
    """Arrow's own format, as a stream, which ``Dataset.save_to_disk`` writes, or as a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._schema = self._open()[0].schema
        self.names = tuple(self._schema.names)
        self._source: Any = None

    def batches(
        self, columns: list[int], types: dict[int, Any], part: range | None = None
    ) -> Iterator[list[Any]]:
        del types, part
        with readable(self.path):
            reader, self._source = self._open()
            count = getattr(reader, "num_record_batches", None)
            found = reader if count is None else (reader.get_batch(i) for i in range(count))
            for batch in found:
                size = max(1, _BATCH_BYTES // max(1, batch.nbytes // max(1, batch.num_rows)))
                for start in range(0, batch.num_rows, size):
                    yield [batch.column(index).slice(start, size) for index in columns]

    @property
    def bytes_read(self) -> int:
        return 0 if self._source is None else int(self._source.tell())

    def _open(self) -> tuple[Any, Any]:
        arrow = pyarrow(self.path)
        source = arrow.memory_map(str(self.path))
        if _begins_with(self.path, _ARROW_MAGIC):
            return arrow.ipc.open_file(source), source
        return arrow.ipc.open_stream(source), source


def _bytes_per_row(file: Any) -> int:  # noqa: ANN401 - pyarrow has no types
    """Return about how many bytes a row of a Parquet file has when it is unpacked."""
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    # A packed byte may stand for a column of eight-byte numbers that are all the same.
    values = 8 * file.metadata.num_columns
    return int(values + sum(group.total_byte_size for group in groups) // max(1, rows))


def _first_line(path: Path) -> tuple[int, str]:
    """Return how many empty lines a file begins with, and the line that follows.

    Raises:
        DatasetError: There is none.
    """
    with gzip.open(path) if _is_gzipped(path) else path.open("rb") as file:
        count = 0
        while line := file.readline(_MAX_HEADER_BYTES):
            if text := line.decode("utf-8-sig", "replace").strip("\r\n"):
                return count, text
            count += 1
    raise DatasetError(f"{path}: expected rows, got none")


def _is_gzipped(path: Path) -> bool:
    return _begins_with(path, _GZIP_MAGIC)


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _is_header(cells: list[str]) -> bool:
    """Return whether the first line of a CSV file names its columns.

    Numbers are data, but a data frame without names calls its columns 0, 1, 2 and so on.
    """
    texts = [cell for cell in cells if not _NUMBER.fullmatch(cell)]
    numbers = [cell.strip() for cell in cells if _NUMBER.fullmatch(cell)]
    if len(numbers) > 1 and numbers in (
        [str(number + first) for number in range(len(numbers))] for first in (0, 1)
    ):
        return True
    return len(texts) > len(numbers)
