"""Files of tables: opened by the end of their names, as CSV, Parquet or Arrow.

Knows how each kind of file is opened and streamed, but not what its columns mean; that is the
business of ``tables``.
"""

import json
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from mlpserve.datasets.csv_file import CsvFile
from mlpserve.datasets.table_file import TableFile, begins_with, pyarrow, readable

CSV_ENDINGS: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET_ENDINGS: Final = (".parquet", ".pq")
ARROW_ENDINGS: Final = (".arrow",)
ENDINGS: Final = (*CSV_ENDINGS, *PARQUET_ENDINGS, *ARROW_ENDINGS)

_BATCH_BYTES: Final = 16 * 1024**2  # of a Parquet file's batch, all columns together
_ARROW_MAGIC: Final = b"ARROW1"  # of a file; a stream has none


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
        return CsvFile(path)


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
        if begins_with(self.path, _ARROW_MAGIC):
            return arrow.ipc.open_file(source), source
        return arrow.ipc.open_stream(source), source


def _bytes_per_row(file: Any) -> int:  # noqa: ANN401 - pyarrow has no types
    """Return about how many bytes a row of a Parquet file has when it is unpacked."""
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    # A packed byte may stand for a column of eight-byte numbers that are all the same.
    values = 8 * file.metadata.num_columns
    return int(values + sum(group.total_byte_size for group in groups) // max(1, rows))
