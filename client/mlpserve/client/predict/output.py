"""Output of predictions: a table for a person, CSV or JSON lines for a program."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from mlpserve.client.predictions import Predictions

_TABLE_ROWS: Final = 10
_BAR_WIDTH: Final = 20


@dataclass(frozen=True, eq=False)
class Labelled:
    """The predictions of the images of one source.

    Attributes:
        source: Where the images are from.
        predictions: What the model says of them.
        class_labels: What each class is called.
        true_labels: (N,) their true classes, where these are known.
    """

    source: str
    predictions: Predictions
    class_labels: tuple[str, ...]
    true_labels: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Row:
    """The prediction of one image, as it is shown."""

    source: str
    index: int
    label: str
    probability: float
    true_label: str | None


def printable(text: str) -> str:
    """Return a text with what would move a terminal's cursor, or change its colours, escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def rows(results: Sequence[Labelled]) -> Iterator[Row]:
    """Yield one row an image."""
    for result in results:
        found = result.predictions
        for index, label in enumerate(found.labels):
            true = None if result.true_labels is None else int(result.true_labels[index])
            yield Row(
                source=result.source,
                index=index,
                label=result.class_labels[label],
                probability=float(found.probabilities[index, label]),
                true_label=None if true is None else result.class_labels[true],
            )


def write_table(results: Sequence[Labelled], file: TextIO) -> None:
    """Write the first few rows of each source as a table, and how many more there are."""
    # Without what Rich reads into brackets and colons: names of classes and files may have them.
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    # Written by ourselves, because Rich ends the process where the reader has had enough.
    with console.capture() as text:
        for result in results:
            console.print(_table(result))
            more = len(result.predictions) - _TABLE_ROWS
            if more > 0:
                console.print(f"... and {more} more: see all with --output csv or jsonl")
    file.write(text.get())


def write_csv(results: Sequence[Labelled], file: TextIO) -> None:
    """Write all rows with a header; the column of the true label is empty where it is unknown."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["source", "index", "label", "probability", "true_label"])
    for row in rows(results):
        true_label = "" if row.true_label is None else row.true_label
        writer.writerow([row.source, row.index, row.label, f"{row.probability:.6f}", true_label])


def write_jsonl(results: Sequence[Labelled], file: TextIO) -> None:
    """Write all rows, each with the probabilities of all classes, as one JSON object a line."""
    for result in results:
        probabilities = result.predictions.probabilities.tolist()
        for row, values in zip(rows([result]), probabilities, strict=True):
            document = {
                "source": row.source,
                "index": row.index,
                "label": row.label,
                "probability": row.probability,
                "true_label": row.true_label,
                "probabilities": dict(zip(result.class_labels, values, strict=True)),
                "model": result.predictions.model_name,
                "version": result.predictions.model_version,
            }
            file.write(json.dumps(document) + "\n")


WRITERS: Final[Mapping[str, Callable[[Sequence[Labelled], TextIO], None]]] = {
    "table": write_table,
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def _table(result: Labelled) -> Table:
    total = len(result.predictions)
    table = Table(
        title=f"{printable(result.source)}: {total} {'image' if total == 1 else 'images'}"
    )
    table.add_column("image", justify="right")
    table.add_column("label")
    table.add_column("probability")
    if result.true_labels is not None:
        table.add_column("true label")
    for row in _first(rows([result]), _TABLE_ROWS):
        table.add_row(*_cells(row))
    return table


def _first(items: Iterator[Row], count: int) -> Iterator[Row]:
    return (row for _, row in zip(range(count), items, strict=False))


def _cells(row: Row) -> list[str]:
    bar = "█" * round(row.probability * _BAR_WIDTH)
    # Labels are the server's, and Rich lets escapes pass.
    cells = [str(row.index), printable(row.label), f"{100 * row.probability:6.2f} % {bar}"]
    if row.true_label is not None:
        cells.append(printable(row.true_label) + ("" if row.true_label == row.label else "  ✗"))
    return cells
