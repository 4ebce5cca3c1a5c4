"""Parquet output: parts that are written whole, and joined to one file at the end."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mlpserve.client import Predictions
from mlpserve.client.predict.batches import Batch
from mlpserve.client.predict.outputs import OOD_SCORE, Form, Row, rows
from mlpserve.datasets import DatasetError


def pyarrow() -> ModuleType:
    """Return pyarrow, with its module for Parquet.

    Raises:
        DatasetError: It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DatasetError(
            "Parquet needs pyarrow: pip install 'mlpserve[tables]', or write csv or jsonl"
        ) from error
    return pa  # type: ignore[no-any-return]


def batch_table(batch: Batch, found: Predictions, form: Form) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the rows of a batch: the columns of CSV, and a list of all probabilities."""
    arrow = pyarrow()
    by_name = dict(
        zip(Row._fields, zip(*rows(batch, found, form.class_labels), strict=True), strict=True)
    )
    if not form.has_ids:
        del by_name["id"]
    if not form.has_ood_scores:
        del by_name[OOD_SCORE]
    flat = arrow.array(np.ascontiguousarray(found.probabilities).reshape(-1))
    lists = arrow.FixedSizeListArray.from_arrays(flat, found.probabilities.shape[1])
    schema = _schema(form)
    arrays = [
        arrow.array(column, field.type)
        for column, field in zip(by_name.values(), schema, strict=False)
    ]
    return arrow.Table.from_arrays([*arrays, lists], schema=schema)


def write_part(path: Path, tables: Sequence[Any]) -> None:
    """Write some rows as a file.

    Raises:
        OSError: It cannot be written.
    """
    arrow = pyarrow()
    arrow.parquet.write_table(arrow.concat_tables(tables), path, compression="zstd")


def join_parts(parts: Iterable[Path], path: Path, form: Form) -> None:
    """Write the rows of files as one file, a part in memory at a time.

    Raises:
        OSError: It cannot be written.
    """
    parquet = pyarrow().parquet
    with parquet.ParquetWriter(path, _schema(form), compression="zstd") as joined:
        for part in parts:
            joined.write_table(parquet.read_table(part))


def _schema(form: Form) -> Any:  # noqa: ANN401 - pyarrow has no types
    arrow = pyarrow()
    float32 = arrow.float32()
    types = {"index": arrow.int64(), "probability": float32, OOD_SCORE: float32}
    fields = [(name, types.get(name, arrow.string())) for name in form.columns]
    lists = arrow.list_(arrow.float32(), len(form.class_labels))
    return arrow.schema([*fields, ("probabilities", lists)])
