"""Forms of the output that are text: a table for a person; CSV or JSON lines for a program.

A form is a line of ``WRITERS`` and its writer, which is given batch after batch.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TextIO

import numpy as np
from rich.console import Console
from rich.table import Table

from mlpserve.client import Predictions
from mlpserve.client.predict.batches import Batch
from mlpserve.model.command_line import printable

_TABLE_ROWS: Final = 10
_BAR_WIDTH: Final = 20
_COLUMNS: Final = ("source", "index", "label", "probability", "true_label")
_WARNING: Final = "warning"
OOD_SCORE: Final = "ood_score"
RESERVED: Final = frozenset({*_COLUMNS, _WARNING, OOD_SCORE, "probabilities", "model", "version"})
"""What columns of ours are called."""


@dataclass(frozen=True)
class Form:
    """How rows are written.

    Attributes:
        class_labels: What each class is called.
        id_column: What the column of what identifies a row is called; "" where there is none.
        has_ood_scores: Whether there is a column with out-of-distribution scores.
    """

    class_labels: tuple[str, ...]
    id_column: str = ""
    has_ood_scores: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns of a row."""
        more = (self.id_column,) if self.id_column else ()
        scores = (OOD_SCORE,) if self.has_ood_scores else ()
        return (*_COLUMNS, *more, *scores, _WARNING)

    @property
    def has_ids(self) -> bool:
        """Return whether there is such a column."""
        return bool(self.id_column)


class Row(NamedTuple):
    """The prediction of one image, as it is shown."""

    source: str
    number: int
    label: str
    probability: float
    true_label: str | None
    id: str | None
    ood_score: float | None
    warning: str | None


def rows(batch: Batch, found: Predictions, class_labels: Sequence[str]) -> Iterator[Row]:
    """Yield one row an image."""
    count = len(batch)
    labels = found.labels.tolist()
    unknown: list[None] = [None] * count
    scores = found.ood_scores
    return map(
        Row,
        (source.name for source in batch.sources),
        batch.indices,
        (class_labels[label] for label in labels),
        found.probabilities[np.arange(count), found.labels].tolist(),
        batch.true_labels or unknown,
        batch.ids or unknown,
        unknown if scores is None else scores.tolist(),
        (warning or None for warning in batch.warnings) if batch.warnings else unknown,
    )


class Writer(Protocol):
    """A writer of rows in one form."""

    def write(self, batch: Batch, found: Predictions) -> None:
        """Write, or keep to be written, the rows of a batch."""

    def end(self) -> None:
        """Write what was kept."""


class CsvWriter:
    """CSV: a header, then a row an image; cells of what is not known are empty.

    Args:
        file: Where to.
        form: How.
        is_begun: Whether the header is there already.
    """

    def __init__(self, file: TextIO, form: Form, *, is_begun: bool = False) -> None:
        self._form = form
        self._writer = csv.writer(file, lineterminator="\n")
        if not is_begun:
            self._writer.writerow(form.columns)

    def write(self, batch: Batch, found: Predictions) -> None:
        """See ``Writer.write``."""
        has_ids, has_scores = self._form.has_ids, self._form.has_ood_scores
        self._writer.writerows(
            (
                row.source,
                row.number,
                row.label,
                f"{row.probability:.6f}",
                row.true_label,
                *((row.id,) if has_ids else ()),
                *((f"{row.ood_score:.4f}",) if has_scores else ()),
                row.warning,
            )
            for row in rows(batch, found, self._form.class_labels)
        )

    def end(self) -> None:
        """See ``Writer.end``."""


class JsonLinesWriter:
    """JSON lines: an object an image, with the probabilities of all classes.

    Args:
        file: Where to.
        form: How.
    """

    def __init__(self, file: TextIO, form: Form) -> None:
        self._file = file
        self._form = form

    def write(self, batch: Batch, found: Predictions) -> None:
        """See ``Writer.write``."""
        labels = self._form.class_labels
        probabilities = found.probabilities.tolist()
        for row, values in zip(rows(batch, found, labels), probabilities, strict=True):
            document = {
                "source": row.source,
                "index": row.number,
                "label": row.label,
                "probability": row.probability,
                "true_label": row.true_label,
                **({self._form.id_column: row.id} if self._form.has_ids else {}),
                **({OOD_SCORE: row.ood_score} if self._form.has_ood_scores else {}),
                "warning": row.warning,
                "probabilities": dict(zip(labels, values, strict=True)),
                "model": found.model_name,
                "version": found.model_version,
            }
            self._file.write(json.dumps(document) + "\n")

    def end(self) -> None:
        """See ``Writer.end``."""


class TableWriter:
    """Tables for a person: the first few rows of each input, and how many more there are.

    Args:
        file: Where to.
        form: How.
    """

    def __init__(self, file: TextIO, form: Form) -> None:
        self._file = file
        self._form = form
        self._first: dict[str, list[Row]] = {}
        self._counts: dict[str, int] = {}

    def write(self, batch: Batch, found: Predictions) -> None:
        """See ``Writer.write``."""
        for source, row in zip(
            batch.sources, rows(batch, found, self._form.class_labels), strict=True
        ):
            group = source.group
            self._counts[group] = self._counts.get(group, 0) + 1
            first = self._first.setdefault(group, [])
            if len(first) < _TABLE_ROWS:
                first.append(row)

    def end(self) -> None:
        """See ``Writer.end``."""
        # Without what Rich reads into brackets and colons: names of classes and files may have
        # them.
        console = Console(file=self._file, highlight=False, markup=False, emoji=False)
        # Written by ourselves, because Rich ends the process where the reader has had enough.
        with console.capture() as text:
            for group, first in self._first.items():
                console.print(_table(group, first, self._counts[group]))
                more = self._counts[group] - len(first)
                if more > 0:
                    console.print(f"... and {more} more: see all with --output csv or jsonl")
        self._file.write(text.get())


WRITERS: Final[Mapping[str, Callable[[TextIO, Form], Writer]]] = {
    "table": TableWriter,
    "csv": CsvWriter,
    "jsonl": JsonLinesWriter,
}


def _table(group: str, first: Sequence[Row], total: int) -> Table:
    table = Table(title=f"{printable(group)}: {total} {'image' if total == 1 else 'images'}")
    table.add_column("image", justify="right")
    table.add_column("label")
    table.add_column("probability")
    if any(row.ood_score is not None for row in first):
        table.add_column("ood score", justify="right")
    if any(row.true_label is not None for row in first):
        table.add_column("true label")
    for row in first:
        table.add_row(*_cells(group, row))
    return table


def _cells(group: str, row: Row) -> list[str]:
    bar = "█" * round(row.probability * _BAR_WIDTH)
    image = str(row.number) if row.source == group else os.path.relpath(row.source, group)
    cells = [printable(image), printable(row.label), f"{100 * row.probability:6.2f} % {bar}"]
    if row.ood_score is not None:
        cells.append(f"{row.ood_score:.2f}")
    if row.true_label is not None:
        cells.append(printable(row.true_label) + ("" if row.true_label == row.label else "  ✗"))
    return cells
