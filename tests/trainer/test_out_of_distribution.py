"""The out-of-distribution score that a training fits: reproducible, optional, and worth having."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.datasets import load_test_split
from mlpserve.model.versions import load_version
from mlpserve.model.weights import Model
from mlpserve.trainer.__main__ import main

Train = Callable[..., "subprocess.CompletedProcess[str]"]
FAST = ("--batch-size", "16", "--epochs", "4")


def scores(model: Model, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    assert model.detector is not None
    return model.detector.scores(images, answers(model, images), model.metadata.input)


def answers(model: Model, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = model.network.probabilities(model.metadata.input.scale(images))
    return found


def auroc(known: npt.NDArray[Any], strange: npt.NDArray[Any]) -> float:
    """Return how often a strange image has the higher score of two, 0.5 for guesses."""
    below = np.searchsorted(np.sort(known), strange, "left")
    ties = np.searchsorted(np.sort(known), strange, "right") - below
    return float((below + ties / 2).mean() / len(known))


@pytest.mark.parametrize("share", ["0.25", "0"], ids=["validation images", "none held out"])
def test_it_is_fitted_to_the_same_bits_by_the_same_seed(
    train: Train, models: Path, data: Path, share: str
) -> None:
    for seed in (1, 1, 2):
        flags = ("--validation-share", share, "--seed", seed, "--threads", "1", "--no-report")
        assert train("--data", data, *FAST, *flags).returncode == 0
    first, again, other = (load_version(models, "thirds", version) for version in (1, 2, 3))
    assert first.detector is not None
    assert again.detector is not None
    assert other.detector is not None
    for name, array in first.detector.to_arrays().items():
        np.testing.assert_array_equal(array, again.detector.to_arrays()[name])
    assert first.detector.threshold != other.detector.threshold


def test_the_share_of_the_test_images_that_are_beyond_it_is_told(
    train: Train, models: Path, data: Path
) -> None:
    assert train("--data", data, *FAST).returncode == 0
    model = load_version(models, "thirds", 1)
    assert model.detector is not None
    test = load_test_split(str(data), data_dir=None)
    beyond = scores(model, test.images) > model.detector.threshold
    assert model.detector.test_share == beyond.mean()
    report = (models / "thirds" / "1" / "report.html").read_text()
    assert f"a score above {model.detector.threshold:.3f}" in report


def test_data_with_very_few_images_gives_a_version_without_a_score(
    train: Train, models: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (12, 4, 6), np.uint8), np.arange(12) % 3
    np.savez(
        tmp_path / "few.npz",
        allow_pickle=False,
        x_train=images,
        y_train=labels,
        x_test=images,
        y_test=labels,
    )
    done = train("--data", tmp_path / "few.npz", *FAST, "--validation-share", "0")
    assert done.returncode == 0
    assert load_version(models, "few", 1).detector is None
    report = (models / "few" / "1" / "report.html").read_text()
    assert "there were too few images to fit a score to" in report


@pytest.mark.exhaustive
def test_it_tells_what_is_no_digit_from_digits_better_than_the_maximum_probability(
    models: Path, mnist_folder: Path
) -> None:
    data = ("--data", "mnist", "--data-dir", str(mnist_folder), "--models", str(models))
    assert main([*data, "--layers", "16,16", "--epochs", "2", "--no-report"]) == 0
    model = load_version(models, "mnist", 1)
    digits = load_test_split("mnist", data_dir=mnist_folder).images[:2000]
    rng = np.random.default_rng(0)
    kinds = {
        "noise": (rng.integers(0, 256, digits.shape, np.uint8), 0.99),
        "inverted": (255 - digits, 0.99),
        "shifted": (np.roll(digits, (7, 7), axis=(1, 2)), 0.95),
        "turned": (np.rot90(digits, axes=(1, 2)), 0.85),
    }
    for name, (strange, least) in kinds.items():
        found = auroc(scores(model, digits), scores(model, strange))
        doubts = (-answers(model, images).max(axis=1) for images in (digits, strange))
        by_probability = auroc(*doubts)
        assert found > max(least, by_probability), (name, found, by_probability)
    blank = np.zeros((1, 28, 28), np.uint8)
    assert model.detector is not None
    assert scores(model, blank)[0] > model.detector.threshold
