"""The command `mlpserve-train evaluate` as its users run it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.folder import weights_path
from mlpserve.model.labels import set_label
from warm_parent import WarmParent

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def evaluate(warm_trainer: WarmParent) -> Run:
    """Return a function that runs the command to its end."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-W", "error", "-m", "mlpserve.trainer", "evaluate", *arguments]
        return warm_trainer.run(list(map(str, command)), timeout_s=60)

    return run


@pytest.fixture(scope="module")
def trained(warm_trainer: WarmParent, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder for ``model`` to copy."""
    models = tmp_path_factory.mktemp("trained")
    places = f"--data {data} --models {models} --batch-size 64".split()
    for flags in ("--epochs 1", "--epochs 1 --learning-rate 0.003 --seed 4"):
        command = [sys.executable, "-m", "mlpserve.trainer", *places, *flags.split()]
        assert warm_trainer.run(command).returncode == 0
    return models


@pytest.fixture
def model(trained: Path, models: Path) -> Path:
    """Return a model with two versions, of which the second is not always right."""
    shutil.copytree(trained, models)
    return models / "thirds"


def by_hand(path: Path, data: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the probabilities for the test images, computed from the file, and the truth."""
    with np.load(path) as file, np.load(data) as images:
        outputs = images["x_test"].reshape(100, 24).astype(np.float64) / 255
        outputs = np.maximum(outputs @ file["W1"] + file["b1"], 0) @ file["W2"] + file["b2"]
        exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True), images["y_test"]


def test_the_figures_are_those_of_a_computation_by_hand(
    evaluate: Run, model: Path, data: Path
) -> None:
    done = evaluate("--model", model, "--data", data, "--output", "json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    probabilities, labels = by_hand(weights_path(model.parent, "thirds", 2), data)
    predicted = probabilities.argmax(axis=1)
    assert (facts["model"], facts["version"], facts["images"]) == ("thirds", 2, 100)
    assert facts["accuracy"] == (predicted == labels).mean() < 1
    loss = -np.log(probabilities[np.arange(100), labels]).mean()
    assert facts["cross_entropy_nats"] == pytest.approx(loss, rel=1e-4)
    sure, ranges = probabilities.max(axis=1), np.ceil(probabilities.max(axis=1) * 15)
    error = sum(
        (ranges == one).mean()
        * abs((predicted == labels)[ranges == one].mean() - sure[ranges == one].mean())
        for one in np.unique(ranges)
    )
    assert facts["expected_calibration_error"] == pytest.approx(error, abs=1e-5)
    for index, found in enumerate(facts["classes"]):
        both = ((predicted == index) & (labels == index)).sum()
        assert found == {
            "label": str(index),
            "precision": both / (predicted == index).sum() if (predicted == index).any() else None,
            "recall": both / (labels == index).sum(),
        }


def test_the_table_says_the_same_of_the_version_that_is_named(
    evaluate: Run, model: Path, data: Path
) -> None:
    facts = json.loads(evaluate("--model", f"{model}:1", "--data", data, "--output", "json").stdout)
    set_label(model.parent, "thirds", "stable", 1)
    done = evaluate("--model", f"{model}:stable", "--data", data)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"thirds version 1: 100 images, accuracy {100 * facts['accuracy']:.2f} %, "
        f"cross-entropy {facts['cross_entropy_nats']:.4f} nats, "
    )
    for found in facts["classes"]:
        assert f"{100 * found['recall']:.2f} %" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to Linux's full disk")
def test_a_disk_that_is_full_is_said_to_be(model: Path, data: Path) -> None:
    command = ["-m", "mlpserve.trainer", "evaluate", "--model", str(model), "--data", str(data)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "mlpserve-train: the output cannot be written: No space left on device\n"
    )


@pytest.mark.parametrize(
    ("reference", "source", "message"),
    [
        ("{model}s", "{data}", "{folder}: has no model 'thirdss'; it has thirds"),
        ("{model}:3", "{data}", "{model}: has no version 3; it has 2, 1"),
        ("{model}/2", "{data}", "{model}: has no model '2'; did you mean {model}:2?"),
        ("{model}", "nowhere", "data: expected auto, mnist, drawn, a folder with"),
        (
            "{model}",
            "{other}",
            "{other}: x_test: expected 24 values an image, for the shape 4x6, got 18",
        ),
    ],
    ids=["model", "version", "folder of a version", "data", "image size"],
)
def test_what_cannot_be_judged_is_said_in_one_sentence(
    evaluate: Run, model: Path, data: Path, *, reference: str, source: str, message: str
) -> None:
    images, labels = np.zeros((2, 3, 6), np.uint8), np.arange(2)
    other = model.parents[1] / "other.npz"
    np.savez(other, x_train=images, y_train=labels, x_test=images, y_test=labels)
    places = {"model": model, "data": data, "folder": model.parent, "other": other}
    done = evaluate("--model", reference.format(**places), "--data", source.format(**places))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"mlpserve-train: {message.format(**places)}")
    assert done.stderr.count("\n") == 1
