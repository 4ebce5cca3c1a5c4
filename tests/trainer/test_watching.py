"""Lines of progress, and runs that publish only when they are asked to."""

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve.model.folder import versions
from mlpserve.model.versions import load_version

Train = Callable[..., "subprocess.CompletedProcess[str]"]

WATCHED = ("--log-format", "json", "--progress-every", "0")


def lines(done: "subprocess.CompletedProcess[str]", event: str) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in found if line["event"] == event]


def test_a_line_of_progress_tells_what_the_network_is_like(
    train: Train, models: Path, data: Path
) -> None:
    flags = ("--batch-size", "0", "--epochs", "5", "--layers", "7", "--average-decay", "0")
    done = train("--data", data, *flags, *WATCHED)
    last = lines(done, "progress")[-1]
    assert (last["step"], last["steps"], last["epochs"]) == (5, 5, 5)
    epoch = lines(done, "epoch")[-1]
    shared = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    assert [last[name] for name in shared] == [epoch[name] for name in shared]
    assert last["confusions"]["split"] == "validation"
    assert last["confusions"]["class_labels"] == ["0", "1", "2"]
    counts = np.array(last["confusions"]["counts"])
    assert (counts.shape, counts.sum()) == ((3, 3), 10)
    assert counts.trace() / 10 == last["validation_accuracy"]
    layer = last["first_layer"]
    assert layer["shape"] == [7, 4, 6]
    shown = np.frombuffer(base64.b64decode(layer["weights"]), np.int8).reshape(7, 24)
    weights = load_version(models, "thirds", 1).network.layers[0].weights.T
    np.testing.assert_allclose(shown * (layer["scale"] / 127), weights, atol=layer["scale"] / 254)


def test_the_loss_of_a_line_is_that_of_the_steps_since_the_line_before(
    train: Train, data: Path
) -> None:
    done = train("--data", data, "--batch-size", "38", "--epochs", "2", *WATCHED)
    found = lines(done, "progress")
    assert found[-1]["step"] == 10
    epoch = lines(done, "epoch")[0]
    assert found[0]["train_loss"] > epoch["train_loss"] > found[-1]["train_loss"]


def test_what_is_not_finite_is_null(train: Train, data: Path) -> None:
    def no_such_number(text: str) -> float:
        pytest.fail(f"{text} is not JSON")

    flags = ("--learning-rate", "1e38", "--epochs", "2", "--batch-size", "0")
    done = train("--data", data, *flags, *WATCHED)
    assert "diverged" in done.stderr
    found = [json.loads(line, parse_constant=no_such_number) for line in done.stdout.splitlines()]
    (last,) = [line for line in found if line["event"] == "progress"]
    assert last["validation_loss"] is None
    assert last["train_loss"] > 0


def test_without_held_out_images_the_confusions_are_those_of_training(
    train: Train, data: Path
) -> None:
    flags = ("--validation-share", "0", "--epochs", "1")
    last = lines(train("--data", data, *flags, *WATCHED), "progress")[-1]
    assert last["confusions"]["split"] == "training"
    assert np.sum(last["confusions"]["counts"]) == 200
    assert last["validation_loss"] is None


def test_a_line_stays_short_however_wide_the_layer_and_however_many_the_classes(
    train: Train, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (400, 60, 60), np.uint8), np.arange(400) % 100
    np.savez(tmp_path / "wide.npz", images=images, labels=labels)
    flags = ("--epochs", "1", "--layers", "300", "--no-report")
    done = train("--data", tmp_path / "wide.npz", *flags, *WATCHED)
    (last, *_) = lines(done, "progress")[-1:]
    assert last["confusions"] is None
    assert last["first_layer"]["shape"] == [65_536 // 3600, 60, 60]
    assert max(map(len, done.stdout.splitlines())) < 100_000


def test_a_run_that_publishes_nothing_is_published_later_to_the_same_bits(
    train: Train, models: Path, data: Path, tmp_path: Path
) -> None:
    flags = ("--data", data, "--epochs", "2", "--log-format", "json")
    kept = train(*flags, "--checkpoint", tmp_path / "run", "--no-publish")
    assert lines(kept, "kept")[0]["checkpoint"] == str(tmp_path / "run")
    assert not models.exists()
    (published,) = lines(train(*flags, "--checkpoint", tmp_path / "run", "--resume"), "published")
    assert published["version"] == 1
    train(*flags)
    first, second = (load_version(models, "thirds", version).network for version in (1, 2))
    for one, other in zip(first.parameters, second.parameters, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stopped_run_is_published_at_once_with_a_short_time_limit(
    train: Train, models: Path, data: Path, tmp_path: Path
) -> None:
    flags = ("--data", data, "--checkpoint", tmp_path / "run", "--epochs", "1000000")
    assert train(*flags, "--no-publish", "--time-limit", "0.2").returncode == 0
    done = train(*flags, "--resume", "--time-limit", "0.001")
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout
    assert versions(models, "thirds") == [1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--progress-every nan --log-format json", "expected at least 0 seconds, got nan"),
        ("--progress-every 1", "expected --log-format json"),
        ("--no-publish", "expected --checkpoint"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    train: Train, data: Path, flags: str, message: str
) -> None:
    done = train("--data", data, *flags.split())
    assert done.returncode == 1
    assert message in done.stderr
