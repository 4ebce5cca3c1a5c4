"""A sweep as a user runs it: the best is published with all trials, and what fails is told."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlpserve.model.folder import versions

Train = Callable[..., "subprocess.CompletedProcess[str]"]
SETTINGS = (*("--epochs", 3, "--validation-share", 0.2, "--batch-size", 16), "--parallel", 1)
# The last rate is so high that the training diverges.
RATES = ("--vary", "learning-rate=0.0001|0.003|0.02|1e38", "--trials", 4)


@pytest.fixture
def sweep(train: Train, data: Path, tmp_path: Path) -> Train:
    """Return a function that runs a sweep on the small data."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        folder = ("--folder", tmp_path / "sweep")
        # ``train`` puts the models folder first, and a command's name belongs there.
        return train("--data", data, *folder, *SETTINGS, *arguments, command="sweep")

    return run


def events(done: "subprocess.CompletedProcess[str]", name: str) -> list[dict[str, Any]]:
    found = map(json.loads, done.stdout.splitlines())
    return [event for event in found if event["event"] == name]


def test_the_best_is_published_with_all_trials_though_one_failed(
    sweep: Train, models: Path, tmp_path: Path
) -> None:
    done = sweep(*RATES, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    (best,) = events(done, "best")
    assert best["values"] == {"learning-rate": "0.02"}
    told = {event["values"]["learning-rate"]: event for event in events(done, "trial")}
    assert told["0.02"]["state"] == "ended"
    assert told["0.0001"]["state"] == "stopped"
    assert told["0.0001"]["epochs"] == 1
    assert told["1e38"]["state"] == "failed"
    assert "try a lower --learning-rate" in told["1e38"]["failure"]
    (published,) = events(done, "published")
    assert published["version"] == 1

    folder = models / "thirds" / "1"
    document = json.loads((folder / "sweep.json").read_text())
    assert document["best"] == best["number"]
    losses = [
        epoch["validation_loss"] for epoch in document["trials"][best["number"] - 1]["epochs"]
    ]
    assert losses == [
        event["validation_loss"]
        for event in events(done, "trial-epoch")
        if event["number"] == best["number"]
    ]
    page = (folder / "report.html").read_text()
    assert "Validation loss of all trials" in page
    assert "Validation loss by learning rate" in page
    assert "failed: " in page
    assert not (tmp_path / "sweep" / "trials").exists()

    again = sweep(*RATES)
    assert again.returncode == 0
    assert "nothing to do: the sweep in" in again.stdout
    assert versions(models, "thirds") == [1]
    other = sweep("--vary", "learning-rate=0.001|0.02")
    assert other.returncode == 1
    assert "it is of another sweep: expected learning-rate 0.001|0.02, as now, got" in other.stderr


@pytest.mark.exhaustive
def test_what_is_not_good_enough_is_published_later_without_training_again(
    sweep: Train, models: Path
) -> None:
    rates = ("--vary", "learning-rate=0.0001|0.0003|1e38")
    refused = sweep(*rates, "--min-accuracy", 1)
    assert refused.returncode == 1
    assert "not published: the test accuracy is" in refused.stderr
    kept = sweep(*rates, "--no-publish")
    assert kept.returncode == 0
    assert not (models / "thirds").exists() or versions(models, "thirds") == []
    done = sweep(*rates, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    # The one that failed is tried again; nothing else is.
    assert {event["state"] for event in events(done, "trial")} == {"failed"}
    assert versions(models, "thirds") == [1]


@pytest.mark.exhaustive
def test_a_sweep_of_which_all_trials_fail_says_why(sweep: Train, models: Path) -> None:
    done = sweep("--vary", "learning-rate=1e37|1e38")
    assert done.returncode == 1
    assert "no trial came to its end: 2 of 2 failed, the first of them was trial" in done.stderr
    assert "try a lower --learning-rate" in done.stderr
    assert not versions(models, "thirds")
