"""What a command line names: tables, folders, patterns, pipes; and networks that run here."""

import csv
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from warm_parent import WarmParent

Done = subprocess.CompletedProcess[str]
Predict = Callable[..., Done]

COMMAND = [sys.executable, "-m", "mlpserve.client"]
IMAGES = np.random.default_rng(6).integers(0, 256, (3000, 2, 3), np.uint8)
FLAT = IMAGES.reshape(-1, 6)


@pytest.fixture
def predict(warm_client: WarmParent, models: Path, tiny_models: None, tmp_path: Path) -> Predict:
    """Return a function that runs the command on the tiny model, without a server."""

    def run(*arguments: object) -> Done:
        command = [*COMMAND, "--models", str(models), *map(str, arguments)]
        return warm_client.run(command, timeout_s=60, folder=tmp_path)

    return run


@pytest.fixture(scope="module")
def labels(model: Model) -> list[str]:
    """Return the class labels that the model gives to ``IMAGES``."""
    names = model.metadata.class_labels
    found = model.network.probabilities(model.metadata.input.scale(IMAGES)).argmax(axis=1)
    return [names[label] for label in found]


def columns() -> dict[str, npt.NDArray[np.uint8]]:
    return {f"pixel{number}": FLAT[:, number] for number in range(6)}


def write_csv(path: Path, table: dict[str, npt.NDArray[np.uint8]] | dict[str, list[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("name", ["test.csv", "test.parquet"])
def test_the_answers_to_a_table_are_in_its_order(
    predict: Predict, tmp_path: Path, labels: list[str], name: str
) -> None:
    if name.endswith(".csv"):
        write_csv(tmp_path / name, columns())
    else:
        pq.write_table(pa.table(columns()), tmp_path / name)
    done = predict(name, "--output", "answers.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "answers.csv: 3,000 rows by tiny version 2, " in done.stderr
    found = rows((tmp_path / "answers.csv").read_text())
    assert [row["label"] for row in found] == labels
    assert [row["index"] for row in found] == [str(number) for number in range(3000)]
    assert not list(tmp_path.glob("*.partial"))


def test_of_a_table_with_labels_the_accuracy_is_told_and_ids_are_kept(
    predict: Predict, tmp_path: Path, labels: list[str], model: Model
) -> None:
    names = model.metadata.class_labels
    numbers = [names.index(label) for label in labels]
    numbers[:300] = [(number + 1) % 3 for number in numbers[:300]]
    # As competitions have it: numbers, which mean the classes in their order.
    table: dict[str, list[str]] = {
        "label": [str(number) for number in numbers],
        **{name: [str(value) for value in column] for name, column in columns().items()},
        "ImageId": [f"im{number}" for number in range(3000)],
    }
    write_csv(tmp_path / "train.csv", table)
    done = predict("train.csv", "--id-column", "ImageId", "--output", "csv")
    assert done.returncode == 0, done.stderr
    assert "tiny version 2 on the rows with a label: accuracy 90.00 % (2700 of 3000)" in done.stderr
    found = rows(done.stdout)
    assert [row["ImageId"] for row in found] == table["ImageId"]
    assert [row["true_label"] for row in found] == [names[number] for number in numbers]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--id-column", "Nobody"], "--id-column: expected one of the columns, .*got 'Nobody'"),
        (["--label-column", "pixel0"], "expected labels of the model, .*--label-column names ano"),
        (["--models", "~/no-such-models"], "no-such-models: cannot be read"),
        (["--model", "other"], "has no model 'other'; it has tiny"),
        (["--version", "7"], "has no version 7; it has 2, 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_said_in_a_sentence(
    predict: Predict, tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_csv(tmp_path / "test.csv", columns())
    done = predict("test.csv", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("mlpserve-predict: ")
    assert len(done.stderr.splitlines()) == 1
    assert pytest.importorskip("re").search(message, done.stderr), done.stderr


def test_a_folder_is_all_pictures_below_it_in_natural_order(
    predict: Predict, tmp_path: Path
) -> None:
    for name in ("10.png", "9.png", "sub/2.png", "sub/11.jpg", "B.png", "a.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[0]).save(path)
    (tmp_path / "scans" / "notes.txt").write_text("no picture")
    (tmp_path / "scans" / "._9.png").write_text("of some other system")
    done = predict("scans", "--output", "csv")
    names = ["9.png", "10.png", "a.png", "B.png", "sub/2.png", "sub/11.jpg"]
    assert [row["source"] for row in rows(done.stdout)] == [f"scans/{name}" for name in names]
    done = predict("scans/**/*.png", "--output", "csv")
    names.remove("sub/11.jpg")
    assert [row["source"] for row in rows(done.stdout)] == [f"scans/{name}" for name in names]


def content_of(kind: str, folder: Path) -> bytes:
    path = folder / f"kept.{kind}"
    if kind == "csv":
        write_csv(path, columns())
    elif kind == "parquet":
        pq.write_table(pa.table(columns()), path)
    elif kind == "npy":
        np.save(path, IMAGES)
    else:
        Image.fromarray(IMAGES[0]).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "png"])
def test_what_comes_through_a_pipe_is_read_once(
    models: Path, tiny_models: None, tmp_path: Path, labels: list[str], kind: str
) -> None:
    content = content_of(kind, tmp_path)
    command = [*COMMAND, "--models", str(models), "-", "--output", "csv"]
    done = subprocess.run(command, input=content, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout.decode())
    assert [row["label"] for row in found] == labels[: len(found)]
    assert len(found) == (1 if kind == "png" else 3000)
    assert {row["source"] for row in found} == {"standard input"}


def test_a_picture_in_a_named_pipe_is_read_once(
    predict: Predict, tmp_path: Path, labels: list[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    content = content_of("png", tmp_path)
    writing = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writing.start()
    done = predict("pipe", "--output", "csv")
    writing.join()
    assert [row["label"] for row in rows(done.stdout)] == labels[:1]
    assert rows(done.stdout)[0]["source"] == "pipe"


def test_a_network_run_here_answers_to_the_bit_what_a_reproducible_server_does(
    predict: Predict, models: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    here = predict("images.npy", "--output", "jsonl")
    server = Server(ServerConfig(models=models, port=0, reproducible=True))
    server.start()
    command = [*COMMAND, "--target", server.address, "images.npy", "--output", "jsonl"]
    there = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    server.stop()
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    assert here.stdout == there.stdout
