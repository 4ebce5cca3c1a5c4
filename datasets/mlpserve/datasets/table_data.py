"""Data sets in tables: a CSV, Parquet or Arrow file, or a folder of them, as ``datasets`` saves.

Which split a file belongs to is told by its name, or else by its folder's: train.csv,
train-00000-of-00002.parquet, test/data-00000-of-00001.arrow.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.cache import TableCache
from mlpserve.datasets.class_labels import LabelIndex
from mlpserve.datasets.dataset import DatasetError, Labels
from mlpserve.datasets.raw import (
    RawData,
    RawSplit,
    ReadOptions,
    arranged,
    joined,
    split_name,
    splits_of,
)
from mlpserve.datasets.tables import Table, is_table, open_table

logger = logging.getLogger(__name__)

_FOLDERS: Final = ("", "data", "train", "test", "validation", "valid", "val")


def is_table_data(path: Path) -> bool:
    """Return whether a path is a table, or a folder that holds some."""
    return bool(_files(path)) if path.is_dir() else is_table(path)


def read_table_data(path: Path, options: ReadOptions, *, test_only: bool) -> RawData:
    """Read images and labels; the data is called like the file or folder.

    Beside ``train.csv``, a ``test.csv`` that has labels is its test split.

    Args:
        path: The file or folder.
        options: What is said about the images, and which column holds the labels.
        test_only: Whether to read the test images alone, if there are any.

    Raises:
        DatasetError: A file cannot be read, or it is not clear what its columns are.
    """
    found = _files(path) if path.is_dir() else _beside(path)
    tables = _labelled_tables(found, options)
    train_tables, test_table = splits_of(tables)
    if test_only and test_table is not None:
        train_tables = []
    index = LabelIndex()
    train = [_read(table, index, options) for table in train_tables]
    test = None if test_table is None else _read(test_table, index, options)
    return RawData(
        name=_name(path),
        train=joined(train) if train else None,
        test=test,
        label_texts=index.texts,
        class_labels=next(iter(tables.values())).class_names,
    )


def _labelled_tables(found: Mapping[str, list[Path]], options: ReadOptions) -> dict[str, Table]:
    """Return the tables of each split; those beside the training images need have no labels."""
    tables = {}
    for split, paths in found.items():
        is_needed = split in ("", "train") or len(found) == 1
        table = open_table(
            paths,
            label_column=options.label_column if is_needed else _own(options.label_column, paths),
            needs_label=is_needed,
            shape=options.shape,
        )
        if table.columns.label is None:
            logger.info("%s has no labels, so it is not tested by", paths[0])
            continue
        if table.columns.ignored:
            names = ", ".join(table.columns.ignored)
            logger.info("%s: columns of text are ignored: %s", paths[0], names)
        tables[split] = table
    return tables


def _own(label_column: str | None, paths: list[Path]) -> str | None:
    """Return the label's column if a table has it: a competition's test.csv does not."""
    names = open_table(paths).column_names
    return label_column if label_column in names or not any(names) else None


def _files(folder: Path) -> dict[str, list[Path]]:
    """Return the tables in a folder, and those a level below, by split."""
    found: dict[str, list[Path]] = {}
    for name in _FOLDERS:
        place = folder / name
        try:
            entries = sorted(place.iterdir()) if place.is_dir() else []
        except OSError as error:
            raise DatasetError(f"{place}: cannot be read: {error.strerror or error}") from error
        for entry in entries:
            # What `datasets` caches beside its files begins so.
            if is_table(entry) and not entry.name.startswith((".", "_", "cache-")):
                split = split_name(name) or split_name(entry.name)
                found.setdefault(split, []).append(entry)
    if set(found) - {""}:
        found.pop("", None)  # such as sample_submission.csv
    return found


def _beside(path: Path) -> dict[str, list[Path]]:
    """Return a file, and the one that is called like it, but with test in place of train."""
    split = split_name(path.name)
    found = {split: [path]}
    if split == "train":
        name = path.name.replace("train", "test").replace("Train", "Test")
        if name != path.name and path.with_name(name).is_file():
            found["test"] = [path.with_name(name)]
    return found


def _read(table: Table, index: LabelIndex, options: ReadOptions) -> RawSplit:
    """Read a table, or the cache of it, which has its own codes for the labels."""
    reading = _Reading(table, options)
    columns = table.columns
    said = {
        "shape": options.shape or table.shape,
        "transpose": options.transpose,
        "columns": [*columns.images, columns.label],
    }
    cache = TableCache(table.paths, said, folder=options.cache_dir)
    found = cache.contents(reading.images, reading.rest, lambda: table.fraction_read)
    return RawSplit(found.images, index.add(found.rest["texts"])[found.rest["codes"]])


class _Reading:
    """A reading of a table, from its first row to its last."""

    def __init__(self, table: Table, options: ReadOptions) -> None:
        self._table = table
        self._options = options
        self._index = LabelIndex()
        self._codes: list[Labels] = []

    def images(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the images, and remember the labels; see ``TableCache.contents``."""
        table, is_first = self._table, True
        for chunk in table.chunks():
            part = chunk.images
            if is_first and table.shape is None and self._options.shape is None:
                _check_shape(table, part.shape[1])
            if table.shape is not None:
                part = part.reshape(len(part), *table.shape)
            if chunk.labels is not None:
                self._codes.append(self._index.add(chunk.labels))
            is_first = False
            yield arranged(part, self._options, where=str(table.paths[0]))

    def rest(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the labels: what each code is called, and the code of each image."""
        return {"texts": np.array(self._index.texts), "codes": np.concatenate(self._codes)}


def _check_shape(table: Table, values: int) -> None:
    side = math.isqrt(values)
    if side**2 != values:
        raise DatasetError(
            f"{table.paths[0]}: expected a square number of pixels, as 64 of 8x8, got {values} "
            f"columns of numbers; say the shape with --shape HEIGHTxWIDTH, or --shape {values} for "
            "values without one, or --label-column if the label is among them"
        )


def _name(path: Path) -> str:
    """Return what the data is called: like its file, without the word train, or its folder."""
    if path.is_dir():
        return path.resolve().name
    stem = path.name.split(".")[0]
    if stem.lower() in {"train", "training", "test"}:
        return path.resolve().parent.name or stem
    for word in ("train", "Train", "training"):
        stem = stem.removesuffix(f"_{word}").removesuffix(f"-{word}")
    return stem
