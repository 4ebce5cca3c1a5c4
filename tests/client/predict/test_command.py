"""The command as its users run it: a process, its two outputs, its exit code."""

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlpserve.datasets.idx import TEST_IMAGES, TEST_LABELS, idx_header
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from warm_parent import WarmParent

Done = subprocess.CompletedProcess[str]
Predict = Callable[..., Done]

COMMAND = [sys.executable, "-m", "mlpserve.client"]
IMAGES = np.random.default_rng(6).integers(0, 256, (20, 2, 3), np.uint8)


@pytest.fixture
def predict_at(warm_client: WarmParent, tmp_path: Path) -> Predict:
    """Return a function that runs the command against a server."""

    def run(target: str, *arguments: object) -> Done:
        command = [*COMMAND, "--target", target, *map(str, arguments)]
        return warm_client.run(command, timeout_s=60, folder=tmp_path)

    return run


@pytest.fixture
def predict(server: Server, predict_at: Predict) -> Predict:
    """Return a function that runs the command against the server of the tiny model."""
    return partial(predict_at, server.address)


@pytest.fixture
def images_file(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, IMAGES)
    return path


@pytest.fixture
def expected(model: Model) -> npt.NDArray[np.float32]:
    """Return the (20, 3) probabilities of ``IMAGES``."""
    return model.network.probabilities(model.metadata.input.scale(IMAGES))


@pytest.fixture
def labels(expected: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return classes of ``IMAGES`` of which the model finds three in four."""
    found: npt.NDArray[np.int64] = expected.argmax(axis=1)
    found[::4] = np.where(found[::4] > 0, 0, 2)  # some too low, some too high
    return found


@pytest.fixture
def data_file(tmp_path: Path, labels: npt.NDArray[np.int64]) -> Path:
    path = tmp_path / "pets.npz"
    np.savez(path, x_train=IMAGES, y_train=labels, x_test=IMAGES, y_test=labels)
    return path


def check_failed(done: Done, message: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.search(rf"^mlpserve-predict: .*{message}", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr


def test_files_of_several_kinds_are_predicted_in_the_order_of_the_command_line(
    predict: Predict,
    tmp_path: Path,
    images_file: Path,
    model: Model,
    expected: npt.NDArray[np.float32],
) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(IMAGES[3]).save(picture)
    done = predict(picture, images_file, "--output", "jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["source"] for row in rows] == [str(picture), *[str(images_file)] * 20]
    assert [row["index"] for row in rows] == [0, *range(20)]
    found = np.array([list(row["probabilities"].values()) for row in rows], np.float32)
    np.testing.assert_allclose(found[1:], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[0], expected[3], rtol=1e-5)
    names = model.metadata.class_labels
    assert [row["label"] for row in rows[1:]] == [names[label] for label in expected.argmax(axis=1)]
    assert {(row["model"], row["version"], row["true_label"]) for row in rows} == {
        ("tiny", 2, None)
    }


def test_pictures_can_be_inverted(
    predict: Predict, tmp_path: Path, expected: npt.NDArray[np.float32]
) -> None:
    Image.fromarray(255 - IMAGES[3]).save(tmp_path / "ink.png")
    done = predict(tmp_path / "ink.png", "--invert", "--output", "jsonl", "--version", "1")
    row = json.loads(done.stdout)
    np.testing.assert_allclose(list(row["probabilities"].values()), expected[3], rtol=1e-5)
    assert row["version"] == 1


def test_a_table_is_shown_where_nothing_else_is_asked_for(
    predict: Predict, images_file: Path
) -> None:
    done = predict(images_file.name)
    assert done.returncode == 0, done.stderr
    assert "images.npy: 20 images" in done.stdout
    assert "... and 10 more" in done.stdout
    assert done.stderr == ""


def test_of_data_the_accuracy_and_the_speed_are_told_beside_the_rows(
    predict: Predict, data_file: Path, model: Model, labels: npt.NDArray[np.int64]
) -> None:
    summary = (
        rf"tiny version (\d) on the test images of {data_file}: "
        r"accuracy 75\.00 % \(15 of 20\), [\d,]+ images/s"
    )
    table = predict("--data", data_file)
    assert table.returncode == 0, table.stderr
    told = re.search(rf"^{summary}$", table.stdout, re.MULTILINE)
    assert told is not None
    assert told[1] == "2"
    assert table.stderr == ""
    # A pipe gets the rows only.
    piped = predict("--data", data_file, "--output", "csv", "--version", "1")
    assert piped.returncode == 0, piped.stderr
    told = re.fullmatch(rf"{summary}\n", piped.stderr)
    assert told is not None
    assert told[1] == "1"
    rows = list(csv.DictReader(io.StringIO(piped.stdout)))
    names = model.metadata.class_labels
    assert [row["true_label"] for row in rows] == [names[label] for label in labels]
    assert {row["source"] for row in rows} == {str(data_file)}


def test_auto_opens_no_path_that_the_server_names(
    predict: Predict, tmp_path: Path, model: Model, labels: npt.NDArray[np.int64]
) -> None:
    folder = tmp_path / model.metadata.training.data_name  # where the command is run
    folder.mkdir()
    for name, array in ((TEST_IMAGES, IMAGES), (TEST_LABELS, labels.astype(np.uint8))):
        (folder / name).write_bytes(idx_header(array.shape) + array.tobytes())
    message = "the model was trained on 'pets'; give that data with --data PATH"
    check_failed(predict("--data", "auto"), message)
    done = predict("--data", "pets")
    assert "on the test images of pets: accuracy 75.00 % (15 of 20)" in done.stdout


def test_more_images_than_the_server_takes_at_once_are_sent_as_several_requests(
    predict: Predict, tmp_path: Path
) -> None:
    np.save(tmp_path / "many.npy", np.zeros((200, 2, 3), np.uint8))  # the server takes 64
    done = predict("many.npy", "--output", "csv")
    assert len(done.stdout.splitlines()) == 1 + 200


def test_a_full_disk_is_said_in_one_sentence(server: Server, images_file: Path) -> None:
    command = [*COMMAND, "--target", server.address, str(images_file), "--output", "csv"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == (
        "mlpserve-predict: the output cannot be written: No space left on device\n"
    )


def test_data_of_more_classes_than_the_models_are_refused(predict: Predict, tmp_path: Path) -> None:
    path = tmp_path / "more.npz"
    np.savez(path, x_test=IMAGES, y_test=np.arange(20))
    check_failed(predict("--data", path), "expected the 3 classes of the model, got a label 19")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "huge"], "NOT_FOUND: .*no model 'huge' is served"),
        (["--version", "9"], "NOT_FOUND: .*version 9 of model 'tiny' is not"),
        (["--version", "-1"], "version: expected a positive number"),
        (["--timeout", "0"], "timeout_s: expected seconds above 0"),
        (["--target", ""], "target: expected HOST:PORT"),
        (["--strict", "missing.npy"], "missing.npy: cannot be read: No such file or directory"),
        (["--strict", "wrong.npy"], "wrong.npy: .*images.data: expected 12 bytes .* 2 x 3 values"),
        (["--strict", "text.npy"], "text.npy: expected CSV, Parquet, Arrow, .npy, .npz, IDX, PNG "),
        (["--strict", "complex.npy"], "complex.npy: images: expected integers, .* got complex128"),
        (["empty"], "empty: no picture is in it"),
        (["*.jpg"], r"\*\.jpg: no file fits this pattern"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_fails_in_one_sentence(
    predict: Predict, tmp_path: Path, images_file: Path, arguments: list[str], message: str
) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((2, 5), np.uint8))
    np.save(tmp_path / "complex.npy", np.zeros((2, 6), np.complex128))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npy").write_text("five")
    check_failed(predict(images_file, *arguments), message)


def test_the_inputs_that_can_be_read_have_their_rows_and_the_others_are_named_at_the_end(
    predict: Predict, tmp_path: Path, images_file: Path
) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((3000, 5), np.uint8))  # several batches
    (tmp_path / "scans").mkdir()
    for number in range(12):
        Image.fromarray(IMAGES[number]).save(tmp_path / "scans" / f"{number}.png")
    (tmp_path / "scans" / "7.png").write_bytes(b"\x89PNG, cut")
    done = predict("missing.npy", "wrong.npy", "scans", images_file, "--output", "csv")
    assert done.returncode == 3
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    pictures = [f"scans/{number}.png" for number in range(12) if number != 7]
    assert [row["source"] for row in rows] == pictures + 20 * [str(images_file)]
    said = [line for line in done.stderr.splitlines() if line.startswith("mlpserve-predict")]
    assert [line.split(": ")[1] for line in said[:-1]] == [
        "missing.npy",
        "wrong.npy",
        "scans/7.png",
    ]
    assert said[-1] == "mlpserve-predict: 3 of 15 inputs could not be read, or not whole"


def test_a_run_of_which_nothing_could_be_read_has_failed(predict: Predict) -> None:
    done = predict("missing.npy", "lost.npy")
    check_failed(done, "lost.npy: cannot be read")


def test_a_server_that_is_down_is_asked_after(predict_at: Predict, images_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        done = predict_at(target, images_file)
    check_failed(done, f"{target}: UNAVAILABLE: .*; is mlpserve-serve running there\\?")


def test_what_a_server_says_does_nothing_to_the_terminal(
    predict_at: Predict, serve: Callable[..., str], images_file: Path
) -> None:
    def refuse(_: object, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.NOT_FOUND, "a\x1b[2Jb\nmlpserve-predict: all is well\u202e")

    target = serve(GetModel=refuse)
    done = predict_at(target, images_file)
    check_failed(done, r"a\\x1b\[2Jb\\nmlpserve-predict: all is well\\u202e")
    assert done.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize("arguments", [[], ["images.npy", "--data", "drawn"]], ids=" ".join)
def test_neither_files_nor_data_or_both_is_a_usage_error(
    predict: Predict, arguments: list[str]
) -> None:
    done = predict(*arguments)
    assert done.returncode == 2
    assert "usage: mlpserve-predict" in done.stderr
    assert done.stderr.endswith("expected either files or --data\n")


def test_a_name_that_is_no_text_is_shown_all_the_same(
    server: Server, tmp_path: Path, images_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")  # as most locales have it
    monkeypatch.chdir(tmp_path)  # the table would shorten a long path
    os.link(images_file, b"\xff.npy")
    command: list[Any] = [*COMMAND, "--target", server.address, b"\xff.npy"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert b"udcff" in done.stdout
    done = subprocess.run(
        [*command, "--model", b"\xff"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert b"mlpserve-predict: model: expected valid Unicode text, got '\\udcff'" in done.stderr


def test_a_terminal_that_cannot_show_a_sign_gets_a_substitute(
    server: Server, images_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    books = images_file.rename(images_file.with_name("bücher.npy"))
    done = subprocess.run(
        [*COMMAND, "--target", server.address, books.name],
        cwd=books.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert r"b\xfccher.npy" in done.stdout


@pytest.mark.parametrize("output", ["table", "csv", "jsonl"])
def test_a_reader_that_has_had_enough_is_no_error(
    models: Path, tiny_models: None, tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or nothing is left for the end, when Python itself writes out what was held back.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    path = tmp_path / "many.npy"
    np.save(path, np.zeros((5000, 2, 3), np.uint8))  # far more than a pipe holds
    server = Server(ServerConfig(models=models, port=0))
    server.start()
    command = [*COMMAND, "--target", server.address, "--output", output, str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # at once, as a table would fit into the pipe
        assert process.stderr.read() == ""
        assert process.wait(60) == 0
    server.stop()


def test_an_interrupted_run_ends_with_its_own_code_and_without_noise(
    serve: Callable[..., str], images_file: Path
) -> None:
    entered, ended = threading.Event(), threading.Event()

    def slow(request: Any, context: grpc.ServicerContext) -> None:
        entered.set()
        ended.wait(30)
        context.abort(grpc.StatusCode.CANCELLED, "nobody waits for this")

    command = [*COMMAND, "--target", serve(GetModel=slow), str(images_file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert entered.wait(30)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    ended.set()
    assert process.returncode == 130
    assert errors == ""
