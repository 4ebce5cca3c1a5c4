"""Files that an earlier release (b6c28d8) wrote, in the folder ``earlier_release``, are read."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpserve.model.__main__ import main
from mlpserve.model.labels import Label, read_labels

FILES = Path(__file__).with_name("earlier_release")
FLAGS = (
    "--layers 4 --batch-size 8 --threads 1 --epochs 8 --dropout 0.1 --average-decay 0.9 "
    "--patience 5 --validation-share 0.2 --checkpoint-every 0 --no-report --log-format lines"
)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a copy of a models folder with two versions and a label that was moved."""
    shutil.copytree(FILES / "sums", tmp_path / "models" / "sums")
    return tmp_path / "models"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write the images that the checkpoint is of."""
    images = np.random.default_rng(0).integers(0, 256, (60, 2, 3), np.uint8)
    labels = np.minimum(images.reshape(60, 6).sum(axis=1, dtype=np.int64) // 300, 2)
    path = tmp_path / "sums.npz"
    arrays = {"x_train": images[:40], "y_train": labels[:40]}
    np.savez(path, allow_pickle=False, x_test=images[40:], y_test=labels[40:], **arrays)
    return path


def test_versions_are_good_and_have_their_labels(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--models", str(models), "verify"]) == 0
    assert capsys.readouterr().out == "sums:2: good\nsums:1: good\n"
    assert read_labels(models, "sums") == {"stable": Label(2, (1,))}


def test_a_label_is_rolled_back_to_what_it_meant_then(models: Path) -> None:
    assert main(["--models", str(models), "rollback", "sums"]) == 0
    assert read_labels(models, "sums") == {"stable": Label(1)}


def test_a_run_goes_on_from_a_checkpoint(models: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(FILES / "checkpoints", folder)
    places = ["--data", str(data), "--models", str(models), "--checkpoint", str(folder)]
    command = [sys.executable, "-m", "mlpserve.trainer", *places, *FLAGS.split(), "--resume"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"resumed from {folder}/checkpoint-000000000004.npz" in output
    assert "epoch 1/8" not in output
    assert f"published {models}/sums/3" in output
    assert list(folder.iterdir()) == []
