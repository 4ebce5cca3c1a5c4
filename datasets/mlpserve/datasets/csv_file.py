"""CSV files: gzipped or not, with any of three delimiters, with a header or without."""

import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mlpserve.datasets.dataset import DatasetError
from mlpserve.datasets.table_file import (
    TableFile,
    begins_with,
    decimal_comma_error,
    pyarrow,
    readable,
)

_BLOCK_BYTES: Final = 4 * 1024**2  # at least
_MAX_HEADER_BYTES: Final = 64 * 1024**2
_GZIP_MAGIC: Final = b"\x1f\x8b"
# A number with a decimal comma, as a cell between semicolons or tabs, and alone.
_COMMA: Final = r"\s*([-+]?\d*,\d+(?:e[-+]?\d+)?)\s*"
_COMMA_NUMBER: Final = re.compile(_COMMA, re.IGNORECASE)
_COMMA_CELL: Final = re.compile(f"(?:^|;){_COMMA}(?=;)|;{_COMMA}$", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)


class CsvFile(TableFile):
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
        """See ``TableFile.types``."""
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
        """See ``TableFile.batches``."""
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
        """See ``TableFile.decimal_comma``."""
        with readable(self.path):
            batch = self._open([column], {}).read_next_batch()
            given = (value for value in batch.column(0).to_pylist() if value is not None)
            first = str(next(given, ""))
        return first if _COMMA_NUMBER.fullmatch(first) else None

    @property
    def bytes_read(self) -> int:
        """See ``TableFile.bytes_read``."""
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
    return begins_with(path, _GZIP_MAGIC)


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
