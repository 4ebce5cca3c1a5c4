"""Predictions as a person sees them, and as a program reads them back."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.client import Predictions
from mlpserve.client.predict.batches import START, Batch
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.outputs import WRITERS, Form

CLASS_LABELS = ("cat", 'a "dög"', "line\nbreak, and comma")


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep out what the terminal of whoever runs the tests would change of a table."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Labelled:
    """The predictions of the images of one source."""

    batch: Batch
    predictions: Predictions
    class_labels: tuple[str, ...]


def labelled(
    probabilities: Sequence[Sequence[float]],
    *,
    source: str = "pets.npy",
    group: str | None = None,
    true_labels: Sequence[int] | None = None,
    class_labels: tuple[str, ...] = CLASS_LABELS,
    ids: Sequence[str] | None = None,
    warnings: Sequence[str] = (),
) -> Labelled:
    values = np.array(probabilities, np.float32)
    count = len(values)
    batch = Batch(
        images=np.zeros((count, 6), np.uint8),
        sources=[ImageFile(Path(source), source, group or source)] * count,
        indices=range(count),
        true_labels=None if true_labels is None else [class_labels[label] for label in true_labels],
        ids=ids,
        warnings=warnings,
        end=START,
    )
    labels = values.argmax(axis=1).astype(np.int32)
    return Labelled(batch, Predictions(labels, values, "pets", 3), class_labels)


def written(kind: str, results: Sequence[Labelled], *, id_column: str = "") -> str:
    file = io.StringIO(newline="")
    writer = WRITERS[kind](file, Form(results[0].class_labels, id_column))
    for result in results:
        writer.write(result.batch, result.predictions)
    writer.end()
    return file.getvalue()


def distributions(count: int) -> npt.NDArray[Any]:
    return np.random.default_rng(4).dirichlet(np.ones(3), count)


@pytest.fixture
def two_sources() -> list[Labelled]:
    return [
        labelled([[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]], source="a, b.png", true_labels=[1, 0]),
        labelled([[0.75, 0.25, 0.0]], source="c.png"),
    ]


def test_csv_has_one_row_an_image_that_a_program_reads_back(two_sources: list[Labelled]) -> None:
    text = written("csv", two_sources)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    first = {"source": "a, b.png", "index": "0", "label": 'a "dög"', "probability": "0.500000"}
    assert rows[0] == first | {"true_label": 'a "dög"', "warning": ""}
    assert rows[1]["label"] == "line\nbreak, and comma"
    assert (rows[1]["index"], rows[1]["true_label"]) == ("1", "cat")
    assert rows[2] == {
        "source": "c.png",
        "index": "0",
        "label": "cat",
        "probability": "0.750000",
        "true_label": "",
        "warning": "",
    }
    assert len(rows) == 3
    assert "\r" not in text


def test_json_lines_hold_all_that_is_known_of_each_image(two_sources: list[Labelled]) -> None:
    lines = written("jsonl", two_sources).splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "source": "a, b.png",
            "index": 0,
            "label": CLASS_LABELS[1],
            "probability": 0.5,
            "true_label": CLASS_LABELS[1],
            "warning": None,
            "probabilities": dict(zip(CLASS_LABELS, [0.25, 0.5, 0.25], strict=True)),
            "model": "pets",
            "version": 3,
        },
        {
            "source": "a, b.png",
            "index": 1,
            "label": CLASS_LABELS[2],
            "probability": 1.0,
            "true_label": "cat",
            "warning": None,
            "probabilities": dict(zip(CLASS_LABELS, [0.0, 0.0, 1.0], strict=True)),
            "model": "pets",
            "version": 3,
        },
        {
            "source": "c.png",
            "index": 0,
            "label": "cat",
            "probability": 0.75,
            "true_label": None,
            "warning": None,
            "probabilities": dict(zip(CLASS_LABELS, [0.75, 0.25, 0.0], strict=True)),
            "model": "pets",
            "version": 3,
        },
    ]


def test_json_lines_keep_every_bit_of_the_probabilities() -> None:
    result = labelled(distributions(50).tolist())
    lines = written("jsonl", [result]).splitlines()
    found = [list(json.loads(line)["probabilities"].values()) for line in lines]
    np.testing.assert_array_equal(np.array(found, np.float32), result.predictions.probabilities)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_program_gets_all_rows(kind: str) -> None:
    lines = written(kind, [labelled(distributions(500).tolist(), class_labels=("a", "b", "c"))])
    assert len(lines.splitlines()) == 500 + (kind == "csv")


def test_a_table_does_nothing_to_the_terminal_whatever_the_labels_are() -> None:
    names = ("cat\x1b[2J", "dog\u202e", "\x9b1m")
    result = labelled(distributions(9).tolist(), class_labels=names, true_labels=[0, 1, 2] * 3)
    text = written("table", [result])
    assert all(line.isprintable() for line in text.splitlines()), text


def test_ids_and_warnings_are_beside_their_rows() -> None:
    result = labelled(
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], ids=["a7", "a8"], warnings=["", "is grey"]
    )
    rows = list(csv.DictReader(io.StringIO(written("csv", [result], id_column="ImageId"))))
    assert [(row["ImageId"], row["warning"]) for row in rows] == [("a7", ""), ("a8", "is grey")]
    lines = written("jsonl", [result], id_column="ImageId").splitlines()
    assert [json.loads(line)["ImageId"] for line in lines] == ["a7", "a8"]
    assert [json.loads(line)["warning"] for line in lines] == [None, "is grey"]


def test_the_pictures_of_a_folder_share_a_table() -> None:
    pictures = [
        labelled([[1.0, 0.0, 0.0]], source=f"scans/{name}.png", group="scans") for name in "ab"
    ]
    text = written("table", pictures)
    assert text.splitlines()[0].strip() == "scans: 2 images"
    assert [cells(text, row)[0] for row in range(2)] == ["a.png", "b.png"]


def cells(text: str, row: int) -> list[str]:
    """Return the cells of a body row of the first table in a text."""
    body = [line for line in text.splitlines() if line.startswith("│")]
    return [cell.strip() for cell in body[row].strip("│").split("│")]


def test_a_table_shows_the_class_its_probability_and_whether_it_is_true() -> None:
    result = labelled(
        [[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]],
        true_labels=[1, 2],
        class_labels=("cat", "dög", "bird"),
    )
    text = written("table", [result])
    assert "pets.npy: 2 images" in text
    assert cells(text, 0) == ["0", "dög", "75.00 % " + 15 * "█", "dög"]
    assert cells(text, 1) == ["1", "cat", "100.00 % " + 20 * "█", "bird  ✗"]


def test_a_table_has_no_column_for_true_labels_that_are_unknown() -> None:
    text = written("table", [labelled([[1.0, 0.0, 0.0]])])
    assert text.splitlines()[0].strip() == "pets.npy: 1 image"
    assert cells(text, 0) == ["0", "cat", "100.00 % " + 20 * "█"]
    assert "true label" not in text


@pytest.mark.parametrize(("count", "more"), [(10, None), (11, "1"), (500, "490")])
def test_a_table_ends_after_ten_rows_and_says_how_many_more_there_are(
    count: int, more: str | None
) -> None:
    text = written("table", [labelled(distributions(count).tolist(), class_labels=("a", "b", "c"))])
    assert f"pets.npy: {count} images" in text
    assert cells(text, 9)[0] == "9"
    assert sum(line.startswith("│") for line in text.splitlines()) == 10
    assert ("more" in text) == (more is not None)
    if more is not None:
        assert f"... and {more} more: see all with --output csv or jsonl" in text


def test_each_source_has_a_table_of_its_own(two_sources: list[Labelled]) -> None:
    text = written("table", two_sources)
    assert text.index("a, b.png: 2 images") < text.index("c.png: 1 image")


@pytest.mark.parametrize("label", ["[red]", "[/]", "[bold]x[/bold]", ":dog:", r"\[a]", "50 %"])
def test_a_table_shows_names_as_they_are_even_where_they_look_like_markup(label: str) -> None:
    text = written(
        "table", [labelled([[1.0, 0.0, 0.0]], class_labels=(label, "b", "c"), source=label)]
    )
    assert f"{label}: 1 image" in text
    assert cells(text, 0)[1] == label
