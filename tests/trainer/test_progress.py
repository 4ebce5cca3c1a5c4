"""Displays of a run: as lines, as JSON lines, on a terminal, and to nobody."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

Train = Callable[..., "subprocess.CompletedProcess[str]"]

EPOCHS = 3
FLAGS = ("--epochs", str(EPOCHS), "--batch-size", "16")


@pytest.fixture
def command(models: Path, data: Path) -> list[str]:
    """Return the command of a short run."""
    places = ("--models", str(models), "--data", str(data))
    return [sys.executable, "-m", "mlpserve.trainer", *places, *FLAGS]


def on_a_terminal(command: list[str], columns: int = 120) -> tuple[int, str]:
    """Return the exit code, and all that was written to a terminal, with its control sequences."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    written = b""
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        try:
            while block := os.read(ours, 65_536):
                written += block
        except OSError:
            pass  # as Linux says that the other side is closed
        process.wait(timeout=60)
    os.close(ours)
    return process.returncode, written.decode()


def screen(written: str) -> list[str]:
    """Return the lines that are to be seen at the end: each as it was written last."""
    lines, row = [""], 0
    for part in re.split(r"(\r\n|\n|\r|\x1b\[[0-9;?]*[A-Za-z])", written):
        if part in ("\n", "\r\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith(("\x1b", "\r")):
            lines[row] += part
    return [line.rstrip() for line in lines if line.strip()]


def test_lines_tell_of_the_data_each_epoch_and_what_was_published(
    train: Train, models: Path, data: Path
) -> None:
    done = train("--data", data, *FLAGS, "--log-format", "lines")
    first, values, *epochs, trained, published = done.stdout.splitlines()
    assert first == "data thirds: 200 training and 100 test images of 4 x 6, 3 classes"
    assert re.fullmatch(r"values from \d+ to \d+, taken for 0 to 255 \(8 bits\)", values)
    assert len(epochs) == EPOCHS
    for number, line in enumerate(epochs, start=1):
        assert re.fullmatch(
            rf"epoch {number}/{EPOCHS}: loss \d\.\d{{4}}, accuracy \d+\.\d\d %, "
            r"validation \d\.\d{4}, \d+\.\d\d %",
            line,
        )
    assert re.fullmatch(r"trained for \d+\.\d s, [0-9,]+ images/s: all epochs are done", trained)
    assert published.startswith(f"published {models / 'thirds' / '1'}: 24-128-3, trained on thirds")


def test_every_json_line_is_an_object_that_a_program_can_use(
    train: Train, models: Path, data: Path
) -> None:
    def no_such_number(text: str) -> float:
        pytest.fail(f"{text} is not JSON")

    done = train("--data", data, *FLAGS, "--log-format", "json")
    events: list[dict[str, Any]] = [
        json.loads(line, parse_constant=no_such_number) for line in done.stdout.splitlines()
    ]
    names = [event["event"] for event in events]
    assert names == ["data", "values", "begin", *["epoch"] * EPOCHS, "trained", "published"]
    assert events[0] == {
        "event": "data",
        "name": "thirds",
        "train_images": 200,
        "test_images": 100,
        "test_origin": "",
        "shape": [4, 6],
        "classes": 3,
    }
    assert events[1]["range"] is None
    assert events[2]["recipe"]["batch_size"] == 16
    assert (events[2]["steps"], events[2]["steps_done"]) == (EPOCHS * 12, 0)
    epochs = events[3 : 3 + EPOCHS]
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2]
    assert all(one["elapsed_s"] < other["elapsed_s"] for one, other in pairwise(epochs))
    assert all(isinstance(epoch["train_accuracy"], float) for epoch in epochs)
    assert events[-2]["ended_because"] == "all epochs are done"
    assert events[-2]["threads"] == 1
    published = events[-1]
    folder = models / "thirds" / "1"
    assert (published["model"], published["version"]) == ("thirds", 1)
    assert published["folder"] == str(folder)
    assert published["report"] == str(folder / "report.html")
    assert 0 <= published["test_accuracy"] <= 1


def test_a_terminal_shows_a_bar_that_leaves_nothing_but_the_lines(command: list[str]) -> None:
    code, written = on_a_terminal(command)
    assert code == 0
    assert re.search(r"epoch \d/3 .*━.* images/s .*left", written)
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor is back
    first, values, *epochs, trained, published = screen(written)
    assert first.startswith("data thirds: ")
    assert values.startswith("values from ")
    assert [line.partition(":")[0] for line in epochs] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert trained.startswith("trained for ")
    assert published.startswith("published ")
    assert published.endswith("report.html")  # on one line, however long, to be copied


def test_a_terminal_is_left_in_order_where_a_run_fails(command: list[str]) -> None:
    code, written = on_a_terminal([*command, "--learning-rate", "1e30"])
    assert code == 1
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")
    first, _, last = screen(written)
    assert first.startswith("data thirds: ")
    assert last.startswith("mlpserve-train: the training diverged")


@pytest.mark.parametrize("log_format", ["lines", "json"])
def test_a_terminal_may_have_plain_lines_too(command: list[str], log_format: str) -> None:
    code, written = on_a_terminal([*command, "--log-format", log_format])
    assert code == 0
    assert "\x1b" not in written
    assert len(written.splitlines()) >= EPOCHS + 3


@pytest.mark.parametrize("log_format", ["lines", "json", "terminal"])
def test_a_run_whose_output_nobody_reads_any_more_publishes_all_the_same(
    command: list[str], models: Path, log_format: str
) -> None:
    with subprocess.Popen(
        [*command, "--log-format", log_format],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "thirds" in process.stdout.readline()
        process.stdout.close()  # as `| head -1` does
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert errors == ""
    assert (models / "thirds" / "1" / "weights.npz").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_run_whose_log_is_on_a_full_disk_publishes(command: list[str], models: Path) -> None:
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stdout=full, timeout=60, check=False).returncode == 0
    assert (models / "thirds" / "1" / "weights.npz").exists()


def test_a_run_without_any_output_publishes(command: list[str], models: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    assert subprocess.run(closed, timeout=60, check=False).returncode == 0
    assert (models / "thirds" / "1" / "weights.npz").exists()
