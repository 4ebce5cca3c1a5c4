"""Parquet output: parts that are written whole, and joined to one file at the end."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final

import numpy as np

from mlpserve.client import Predictions
from mlpserve.client.predict.batches import Batch
from mlpserve.client.predict.outputs import OOD_SCORE, Form
from mlpserve.datasets import DatasetError

_FACTS_KEY: Final = b"mlpserve"


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
    count, unknown = len(batch), arrow.nulls(len(batch), arrow.string())
    labels, probabilities = found.labels, np.ascontiguousarray(found.probabilities)
    arrays = {
        "source": [source.name for source in batch.sources],
        "index": np.asarray(batch.indices, np.int64),
        "label": arrow.array(form.class_labels).take(arrow.array(labels)),
        "probability": probabilities[np.arange(count), labels],
        "true_label": unknown if batch.true_labels is None else batch.true_labels,
        form.id_column: unknown if batch.ids is None else batch.ids,
        OOD_SCORE: found.ood_scores,
        "warning": [warning or None for warning in batch.warnings] or unknown,
        "probabilities": arrow.FixedSizeListArray.from_arrays(
            arrow.array(probabilities.reshape(-1)), probabilities.shape[1]
        ),
    }
    schema = _schema(form)
    columns = [arrow.array(arrays[field.name], field.type) for field in schema]
    return arrow.Table.from_arrays(columns, schema=schema)


def part_content(tables: Sequence[Any], form: Form, facts: bytes) -> bytes:
    """Return some rows as the content of a file, with facts about them that ``part_facts`` reads.

    The same rows and facts give the same bytes.
    """
    arrow = pyarrow()
    schema = _schema(form).with_metadata({_FACTS_KEY: facts})
    table = arrow.concat_tables([schema.empty_table(), *tables]).combine_chunks()
    sink = arrow.BufferOutputStream()
    arrow.parquet.write_table(
        table.replace_schema_metadata(schema.metadata), sink, compression="zstd"
    )
    return bytes(sink.getvalue())


def part_facts(file: IO[bytes]) -> bytes:
    """Return the facts that ``part_content`` was given; empty where the file is none of ours.

    Raises:
        DatasetError: It is no Parquet file.
    """
    arrow = pyarrow()
    try:
        metadata = arrow.parquet.read_schema(file).metadata or {}
    except arrow.ArrowInvalid as error:
        raise DatasetError(f"expected a Parquet file, but {error}") from error
    return bytes(metadata.get(_FACTS_KEY, b""))


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
