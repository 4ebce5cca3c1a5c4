"""Training that learns from published versions: what is published, refused, warned of, resumed."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlpserve.model.folder import weights_path
from mlpserve.model.weights import load_model

Train = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def teacher(train: Train, data: Path) -> None:
    """Publish two versions of a wide network, ``wide``."""
    for seed in ("0", "1"):
        flags = ("--layers", "40", "--epochs", "4", "--batch-size", "16", "--seed", seed)
        done = train("--data", data, "--name", "wide", *flags)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def other_data(data: Path, tmp_path: Path) -> Path:
    """Return images of the same kind but for two columns that they lack, and a class of them."""
    with np.load(data) as file:
        arrays = dict(file)
    for split in ("train", "test"):
        kept = arrays[f"y_{split}"] < 2
        arrays[f"x_{split}"] = arrays[f"x_{split}"][kept]
        arrays[f"y_{split}"] = arrays[f"y_{split}"][kept]
    np.savez(tmp_path / "two.npz", **arrays)
    arrays["x_train"], arrays["x_test"] = arrays["x_train"][:, :, :4], arrays["x_test"][:, :, :4]
    np.savez(tmp_path / "narrow.npz", **arrays)
    return tmp_path


@pytest.mark.usefixtures("teacher")
def test_a_network_learns_from_versions_alone_and_its_metadata_say_which(
    train: Train, models: Path, data: Path
) -> None:
    flags = ("--layers", "8", "--epochs", "6", "--batch-size", "16", "--teacher", "wide:1")
    done = train("--data", data, "--name", "small", *flags, "--teacher", "wide")
    assert done.returncode == 0, done.stderr
    training = load_model(weights_path(models, "small", 1)).metadata.training
    assert training.hyperparameters["teachers"] == "wide:1, wide:2"
    assert training.hyperparameters["teacher_share"] == 1
    assert training.hyperparameters["teacher_temperature"] == 3
    assert training.test_accuracy > 0.95


@pytest.mark.usefixtures("teacher")
def test_a_teacher_that_learned_from_the_images_held_out_here_is_warned_of(
    train: Train, data: Path
) -> None:
    same = train("--data", data, "--epochs", "1", "--teacher", "wide:1")
    other = train("--data", data, "--epochs", "1", "--teacher", "wide:2")
    assert "held out here" not in same.stdout + same.stderr
    assert (
        "--teacher: wide:2 learned from images that are held out here, so that the validation may "
        "look too good; train it with the same --seed and --validation-share"
    ) in " ".join((other.stdout + other.stderr).split())


@pytest.mark.usefixtures("teacher")
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("two", "--teacher: wide:2: expected classes ('0', '1'), as the data has, got ('0', '1', "),
        ("narrow", "--teacher: wide:2: expected images of shape (4, 4), as the data has, got (4, "),
    ],
)
def test_a_teacher_of_other_images_or_classes_is_refused(
    train: Train, other_data: Path, file: str, message: str
) -> None:
    done = train("--data", other_data / f"{file}.npz", "--teacher", "wide")
    assert done.returncode == 1
    assert message in done.stderr
    assert "name a version that was trained on such data" in done.stderr


@pytest.mark.usefixtures("teacher")
def test_a_run_goes_on_with_the_versions_it_began_with_or_not_at_all(
    train: Train, models: Path, data: Path, tmp_path: Path
) -> None:
    run = ("--data", data, "--name", "small", "--checkpoint", tmp_path / "run", "--resume")
    begun = train(*run, "--teacher", "wide", "--no-publish", "--epochs", "1")
    assert begun.returncode == 0, begun.stderr
    refused = train(*run, "--teacher", "wide:1", "--epochs", "1")
    assert "expected teachers ['wide:1'], as now, got ['wide:2']" in refused.stderr
    resumed = train(*run, "--teacher", "wide:2", "--epochs", "1")
    assert resumed.returncode == 0, resumed.stderr
    assert weights_path(models, "small", 1).exists()
