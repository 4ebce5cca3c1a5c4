"""``mlpserve-predict --ood-scores``: a column, and a warning beside what is unlike the training."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from warm_parent import WarmParent

Predict = Callable[..., "subprocess.CompletedProcess[str]"]

DARK = np.random.default_rng(1).integers(0, 60, (2, 2, 3), np.uint8)
BRIGHT = np.random.default_rng(4).integers(180, 220, (90, 2, 3), np.uint8)[:2]
IMAGES = np.concatenate([BRIGHT, DARK])
UNLIKE = "does not look like what the model learned"


@pytest.fixture
def tiny_models(models: Path, scored_model: Model) -> None:
    publish(models, scored_model)


@pytest.fixture
def predict(warm_client: WarmParent, tmp_path: Path) -> Predict:
    """Return a function that runs the command in a folder with four images."""
    np.save(tmp_path / "images.npy", IMAGES)

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "mlpserve.client", *map(str, arguments)]
        return warm_client.run(command, timeout_s=60, folder=tmp_path)

    return run


@pytest.fixture(params=["a server", "a folder"])
def place(request: pytest.FixtureRequest, models: Path) -> tuple[object, ...]:
    """Return what names the model: at a server, or in a models folder."""
    if request.param == "a folder":
        request.getfixturevalue("tiny_models")
        return "--models", models
    server: Server = request.getfixturevalue("server")
    return "--target", server.address


def test_each_row_has_its_score_and_those_beyond_the_threshold_a_warning(
    predict: Predict, place: tuple[object, ...], scored_model: Model
) -> None:
    done = predict(*place, "images.npy", "--output", "csv", "--ood-scores")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0])[-2:] == ["ood_score", "warning"]
    assert [row["warning"] for row in rows] == ["", "", UNLIKE, UNLIKE]
    spec, detector = scored_model.metadata.input, scored_model.detector
    assert detector is not None
    answers = scored_model.network.probabilities(spec.scale(IMAGES))
    found = [float(row["ood_score"]) for row in rows]
    np.testing.assert_allclose(found, detector.scores(IMAGES, answers, spec), atol=2e-3)
    assert f"WARNING: images.npy 2: {UNLIKE}" in done.stderr


def test_every_form_has_the_scores(
    predict: Predict, tiny_models: None, models: Path, tmp_path: Path
) -> None:
    def run(form: str) -> str:
        done = predict("--models", models, "images.npy", "--ood-scores", "--output", form)
        assert done.returncode == 0, done.stderr
        return done.stdout

    scores = [json.loads(line)["ood_score"] for line in run("jsonl").splitlines()]
    table = run("table")
    assert "ood score" in table
    assert f"{scores[2]:.2f}" in table
    run("rows.parquet")
    columns = pq.read_table(tmp_path / "rows.parquet").to_pydict()
    np.testing.assert_allclose(columns["ood_score"], scores)
    assert columns["warning"] == [None, None, UNLIKE, UNLIKE]
    assert columns["index"] == [0, 1, 2, 3]


def test_without_the_flag_nothing_is_scored_and_no_column_is_there(
    predict: Predict, place: tuple[object, ...]
) -> None:
    done = predict(*place, "images.npy", "--output", "csv")
    assert done.stdout.splitlines()[0] == "source,index,label,probability,true_label,warning"
    assert UNLIKE not in done.stderr + done.stdout


def test_a_picture_that_is_doubted_already_has_both_warnings(
    predict: Predict, tiny_models: None, models: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "black.png")
    done = predict("--models", models, "black.png", "--output", "jsonl", "--ood-scores")
    warning = json.loads(done.stdout)["warning"]
    assert warning.startswith("is of one grey; ")
    assert warning.endswith(f"; {UNLIKE}")
    assert f"WARNING: black.png: {warning}" in done.stderr


def test_a_version_without_a_score_is_said_before_anything_is_read(
    predict: Predict, models: Path, model: Model
) -> None:
    publish(models, model)
    done = predict("--models", models, "missing.npy", "--ood-scores")
    assert done.returncode == 1
    assert "--ood-scores: version 1 of 'tiny' has no out-of-distribution score" in done.stderr
    assert "or leave the flag out" in done.stderr
