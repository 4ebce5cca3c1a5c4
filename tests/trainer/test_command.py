"""The trainer as its users run it: a process, its output, its exit code, the folder afterwards."""

import gzip
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlpserve.datasets import load_test_split
from mlpserve.datasets.drawn import draw_digits
from mlpserve.model.folder import versions, weights_path
from mlpserve.model.weights import load_model
from mlpserve.trainer.evaluation import scores

Train = Callable[..., "subprocess.CompletedProcess[str]"]

FLAGS = """
activation average-decay batch-size checkpoint checkpoint-every compare-to data data-dir dropout
epochs label-smoothing layers learned-probability learning-rate log-format min-accuracy models name
no-report optimizer patience recipe resume schedule seed teacher teacher-share
teacher-temperature threads time-limit unless-published validation-share warp weight-decay
"""
PLAIN = ("mlpserve.trainer.learning.plain",)
SEED = ("mlpserve.trainer", "--recipe", "seed", "--log-format", "lines")
PUBLISHED_TABLE = """\
0 0.230083 13.260000
10 0.204155 40.781667
20 0.153983 47.766667
30 0.118734 67.136667
40 0.096660 73.488333
50 0.083073 77.815000
60 0.072998 80.786667
70 0.115302 60.456667
80 0.061357 84.006667
90 0.060022 84.413333
100 0.058777 84.738333
110 0.057598 85.070000
120 0.056478 85.361667
130 0.055412 85.630000
140 0.054397 85.903333
"""


def table_in(output: str) -> str:
    lines = re.findall(r"^iteration +(\d+): cost (\S+), accuracy (\S+) %$", output, re.MULTILINE)
    return "".join(" ".join(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(PLAIN, id="the page", marks=pytest.mark.exhaustive),
        pytest.param(SEED, id="the recipe"),
    ],
)
def test_the_tutorials_published_table_begins_digit_for_digit(
    models: Path, mnist_folder: Path, monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...]
) -> None:
    monkeypatch.chdir(models.parent)
    monkeypatch.setenv("MLPSERVE_DATA_DIR", str(mnist_folder))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # more spin while they wait for one another
    found = ""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", *program, "--data", "mnist"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while found.count("\n") < 2:
            line = process.stdout.readline()
            assert line
            found += table_in(line)
        process.kill()
    assert PUBLISHED_TABLE.startswith(found)


@pytest.mark.exhaustive
def test_the_page_with_the_algorithm_prints_the_tutorials_published_table_digit_for_digit(
    mnist_folder: Path,
) -> None:
    command = [sys.executable, "-m", "mlpserve.trainer.learning.plain", "--data", "mnist"]
    done = subprocess.run(
        [*command, "--data-dir", str(mnist_folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert table_in(done.stdout) == PUBLISHED_TABLE


@pytest.mark.exhaustive
def test_the_seed_recipe_prints_the_tutorials_published_table_digit_for_digit(
    train: Train, models: Path, mnist_folder: Path
) -> None:
    done = train("--data", "mnist", "--data-dir", mnist_folder, "--recipe", "seed")
    assert done.returncode == 0, done.stderr
    assert table_in(done.stdout) == PUBLISHED_TABLE
    model = load_model(weights_path(models, "mnist", 1))
    assert model.metadata.layer_sizes == (784, 16, 16, 10)
    assert model.metadata.activations == ("tanh", "tanh", "softmax")
    assert model.metadata.training.test_accuracy == 0.8652


@pytest.mark.exhaustive
def test_the_fast_form_of_the_seed_recipe_follows_the_published_table_but_for_its_unstable_part(
    train: Train, mnist_folder: Path
) -> None:
    done = train("--data", "mnist", "--data-dir", mnist_folder, "--recipe", "seed-fast")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^iteration +(\d+): cost (\S+),", done.stdout, re.MULTILINE)
    published = [line.split()[:2] for line in PUBLISHED_TABLE.splitlines()]
    assert [iteration for iteration, _ in found] == [iteration for iteration, _ in published]
    for (iteration, cost), (_, expected) in zip(found, published, strict=True):
        # Around 70 the tutorial's learning rate is too high, and rounding grows; see benchmarks/.
        limit = 2e-4 if int(iteration) <= 60 or int(iteration) == 140 else 0.1
        assert float(cost) == pytest.approx(float(expected), abs=limit)


def test_the_fast_recipe_classifies_97_percent_of_mnists_test_images(
    train: Train, models: Path, mnist_folder: Path
) -> None:
    done = train("--data", "mnist", "--data-dir", mnist_folder, "--recipe", "fast")
    assert done.returncode == 0, done.stderr
    model = load_model(weights_path(models, "mnist", 1))
    split = load_test_split("mnist", data_dir=mnist_folder)
    found = scores(model.network, model.metadata.input, split).accuracy
    assert found >= 0.97
    assert model.metadata.training.test_accuracy == found
    assert f"test accuracy {100 * found:.2f} %" in done.stdout


def test_a_network_that_saw_5000_drawn_digits_only_reads_85_percent_of_mnists_test_images(
    train: Train, models: Path, mnist_folder: Path, tmp_path: Path
) -> None:
    drawn = draw_digits(6000, seed=4)
    images, labels = np.split(drawn.images, [5000]), np.split(drawn.labels, [5000])
    path = tmp_path / "sketches.npz"
    np.savez(path, x_train=images[0], y_train=labels[0], x_test=images[1], y_test=labels[1])
    done = train("--data", path)
    assert done.returncode == 0, done.stderr
    model = load_model(weights_path(models, "sketches", 1))
    split = load_test_split("mnist", data_dir=mnist_folder)
    assert scores(model.network, model.metadata.input, split).accuracy >= 0.85


@pytest.mark.exhaustive
def test_a_network_that_saw_drawn_digits_only_reads_90_percent_of_mnists_test_images(
    train: Train, models: Path, mnist_folder: Path
) -> None:
    done = train("--data", "drawn")
    assert done.returncode == 0, done.stderr
    model = load_model(weights_path(models, "drawn", 1))
    assert model.metadata.training.data_name == "drawn"
    split = load_test_split("mnist", data_dir=mnist_folder)
    assert scores(model.network, model.metadata.input, split).accuracy >= 0.90


def test_a_run_publishes_what_its_flags_say(train: Train, models: Path, data: Path) -> None:
    flags = "--name lights --layers 7,5 --activation sigmoid --epochs 2 --batch-size 32"
    flags += " --warp slight --learned-probability 0.9"
    done = train("--data", data, *flags.split(), "--learning-rate", "0.02", "--seed", "9")
    assert done.returncode == 0, done.stderr
    metadata = load_model(weights_path(models, "lights", 1)).metadata
    assert metadata.layer_sizes == (24, 7, 5, 3)
    assert metadata.activations == ("sigmoid", "sigmoid", "softmax")
    assert metadata.input.shape == (4, 6)
    assert metadata.class_labels == ("0", "1", "2")
    training = metadata.training
    assert (training.recipe, training.seed, training.data_name) == ("fast", 9, "thirds")
    assert training.hyperparameters["epochs"] == 2
    assert training.hyperparameters["batch_size"] == 32
    assert training.hyperparameters["learning_rate"] == 0.02
    assert training.hyperparameters["learned_probability"] == 0.9
    assert training.hyperparameters["warp_rotation_degrees"] == 7
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", training.data_digest)


def test_shapes_and_classes_come_from_the_data_and_are_learned(
    train: Train, models: Path, data: Path
) -> None:
    done = train("--data", data, "--batch-size", "16", "--epochs", "5")
    assert done.returncode == 0, done.stderr
    assert load_model(weights_path(models, "thirds", 1)).metadata.training.test_accuracy > 0.95


def test_each_run_publishes_the_next_version_and_the_same_seed_the_same_bits(
    train: Train, models: Path, data: Path
) -> None:
    for _ in range(2):
        assert train("--data", data, "--epochs", "1").returncode == 0
    assert versions(models, "thirds") == [2, 1]
    first, second = (load_model(weights_path(models, "thirds", version)) for version in (1, 2))
    for one, two in zip(first.network.parameters, second.network.parameters, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_job_that_is_started_again_unless_published_trains_only_once(
    train: Train, models: Path, data: Path
) -> None:
    again = ("--data", data, "--name", "lights", "--epochs", "1", "--unless-published")
    assert "published" in train(*again).stdout
    done = train(*again)
    assert done.returncode == 0
    assert done.stdout == f"nothing to do: {models / 'lights'} has version 1\n"
    assert versions(models, "lights") == [1]
    assert train(*again[:-1]).returncode == 0
    assert versions(models, "lights") == [2, 1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--unless-published", "--unless-published: expected --name, to know which model"),
        ("--epochs 0", "epochs: expected at least 1, got 0"),
        ("--learning-rate -1", "learning rate: expected above 0 and finite, got -1"),
        ("--learning-rate nan", "learning rate: expected above 0 and finite, got nan"),
        ("--learning-rate 1e30", "try a lower --learning-rate than 1e+30"),
        ("--layers 0", "layers: expected widths from 1"),
        ("--layers a,b", "expected widths with commas between them, as in 256,128"),
        ("--recipe slow", "invalid choice: 'slow'"),
        ("--optimizer best", "invalid choice: 'best'"),
        ("--name ../evil", "name: expected 1 to 64 letters"),
        ("--data nothing-here", "got 'nothing-here', and there is no such file or folder"),
        ("--data /dev/null", "/dev/null"),
        ("--batch-size -1", "batch size: expected at least 1, or 0 for all images, got -1"),
        ("--seed -1", "seed: expected from 0 to 4294967295, got -1"),
        ("--dropout 1", "dropout: expected from 0 to below 1, got 1.0"),
        ("--label-smoothing nan", "label smoothing: expected from 0 to below 1, got nan"),
        ("--average-decay 1", "average decay: expected from 0 to below 1, got 1.0"),
        ("--weight-decay -1", "weight decay: expected at least 0 and finite, got -1"),
        ("--validation-share 1", "validation share: expected from 0 to below 1, got 1.0"),
        ("--validation-share 0.001", "validation share: 0.001 of 200 images is 0; expected at"),
        ("--patience -1", "patience: expected at least 1 epoch, or 0 for never, got -1"),
        ("--patience 2 --validation-share 0", "patience: expected a validation share above 0"),
        ("--threads 0", "--threads: expected from 1 to 256, got 0"),
        ("--threads 257", "--threads: expected from 1 to 256, got 257"),
        ("--min-accuracy 97", "--min-accuracy: expected from 0 to 1, as in 0.97, got 97"),
        ("--min-accuracy nan", "--min-accuracy: expected from 0 to 1, as in 0.97, got nan"),
        ("--time-limit 0", "--time-limit: expected above 0 seconds, got 0"),
        ("--time-limit nan", "--time-limit: expected above 0 seconds, got nan"),
        ("--checkpoint-every -1", "--checkpoint-every: expected at least 0 seconds, got -1"),
        ("--resume", "--resume: expected --checkpoint, to know where to look for one"),
        ("--log-format xml", "invalid choice: 'xml'"),
        (
            "--compare-to a/b",
            "--compare-to: model: expected NAME, NAME:VERSION or NAME:LABEL, got 'a/b'",
        ),
        ("--teacher nobody", "there is no such folder"),
        ("--teacher-share 0", "teacher share: expected above 0 to 1, got 0.0"),
        (
            "--teacher-temperature 0.5",
            "teacher temperature: expected at least 1 and finite, got 0.5",
        ),
        ("--teacher-share nan", "teacher share: expected above 0 to 1, got nan"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("--") else "",
)
def test_what_cannot_be_done_fails_in_one_sentence_and_publishes_nothing(
    train: Train, models: Path, data: Path, flags: str, message: str
) -> None:
    done = train("--data", data, *flags.split())
    assert done.returncode == (2 if "usage:" in done.stderr else 1)
    program, colon, sentence = done.stderr.splitlines()[-1].partition(": ")
    assert (program, colon) == ("mlpserve-train", ": ")
    assert message in sentence
    assert "Traceback" not in done.stderr
    assert not list(models.rglob("*.npz"))


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ([], ["evaluate", "export", *(f"--{name}" for name in FLAGS.split())]),
        (["evaluate"], ["--model", "--data", "--data-dir", "--output"]),
        (["export"], ["--model", "--format", "--output"]),
    ],
    ids=["train", "eval", "export"],
)
def test_help_names_the_command_and_every_flag(command: list[str], names: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlpserve.trainer", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(f"usage: {' '.join(['mlpserve-train', *command])} [-h]")
    assert [name for name in names if name not in done.stdout] == []


def test_damaged_data_is_refused_by_the_name_of_its_file(
    train: Train, models: Path, mnist_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in mnist_folder.iterdir():
        (folder / path.name).symlink_to(path)
    damaged = folder / "train-images-idx3-ubyte.gz"
    damaged.unlink()
    damaged.write_bytes(gzip.compress(b"\0\0\x08\x01" + bytes(4)))
    done = train("--data", folder)
    assert done.returncode == 1
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert not models.exists()


def test_a_models_folder_that_cannot_be_written_is_found_out_before_training(
    train: Train, models: Path, data: Path
) -> None:
    models.write_text("a file, not a folder")
    done = train("--data", data)
    assert done.returncode == 1
    assert f"{models / 'thirds'}: cannot be written to" in done.stderr
    assert "epoch" not in done.stdout


@pytest.mark.parametrize(
    ("signal_number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="INT"),
        pytest.param(signal.SIGTERM, 143, id="TERM", marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGHUP, 129, id="HUP", marks=pytest.mark.exhaustive),
    ],
)
def test_a_run_that_is_told_to_stop_ends_with_its_own_code_and_publishes_nothing(
    models: Path, data: Path, signal_number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "mlpserve.trainer", "--models", models, "--data", data]
    with subprocess.Popen(
        [*map(str, command), "--epochs", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "epoch" not in process.stdout.readline():
            pass
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert versions(models, "thirds") == []


def test_the_variable_names_the_folder_of_mnist(
    train: Train, mnist_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_DATA_DIR", os.fspath(mnist_folder))
    done = train("--data", "auto", "--epochs", "1", "--layers", "4")
    assert done.returncode == 0, done.stderr
    assert "data mnist: 60000 training and 10000 test images of 28 x 28" in done.stdout
