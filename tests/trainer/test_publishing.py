"""Publication by a run: of what, and under which conditions."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlpserve.datasets import load_dataset, load_test_split
from mlpserve.model.__main__ import main as models_main
from mlpserve.model.folder import versions, weights_path
from mlpserve.model.labels import set_label
from mlpserve.model.versions import load_version
from mlpserve.model.weights import check_golden
from mlpserve.trainer import publication
from mlpserve.trainer.__main__ import main
from mlpserve.trainer.calibration import without_temperature
from mlpserve.trainer.evaluation import evaluate, scores
from mlpserve.trainer.reliability import expected_calibration_error

Train = Callable[..., "subprocess.CompletedProcess[str]"]

GOOD = ("--batch-size", "16", "--epochs", "4")
BAD = ("--batch-size", "100", "--epochs", "1", "--learning-rate", "0.001")


def test_what_is_published_checks_itself_by_golden_samples_of_the_test_images(
    train: Train, models: Path, data: Path
) -> None:
    assert train("--data", data, *GOOD).returncode == 0
    model = load_version(models, "thirds", 1)
    assert model.golden is not None
    images = load_test_split(str(data), data_dir=None).images[:16]
    np.testing.assert_array_equal(model.golden.images, images)
    check_golden(model, tolerance=1e-6)


def test_accuracies_and_calibration_are_of_the_published_network_on_the_split_that_is_meant(
    train: Train, models: Path, data: Path
) -> None:
    assert train("--data", data, *BAD, "--validation-share", "0.25").returncode == 0
    model = load_version(models, "thirds", 1)
    training, dataset = model.metadata.training, load_dataset(str(data), data_dir=None)
    found = evaluate(model.network, model.metadata.input, dataset.test)
    assert training.test_accuracy == found.accuracy
    assert training.validation_accuracy is not None
    # 150 images are learned from, and 50 are held out; together they are the training images.
    together = 150 * training.train_accuracy + 50 * training.validation_accuracy
    right = 200 * scores(model.network, model.metadata.input, dataset.train).accuracy
    assert together == pytest.approx(right)
    calibration = training.calibration
    assert calibration is not None
    after = calibration.expected_calibration_error_after
    assert after == pytest.approx(expected_calibration_error(found), abs=1e-6)
    before = expected_calibration_error(without_temperature(found, calibration.temperature))
    assert calibration.expected_calibration_error_before == pytest.approx(before, abs=1e-4)
    assert calibration.temperature != 1


def test_without_a_validation_share_there_is_nothing_to_calibrate_by(
    train: Train, models: Path, data: Path
) -> None:
    assert train("--data", data, *GOOD, "--validation-share", "0").returncode == 0
    model = load_version(models, "thirds", 1)
    assert model.metadata.training.validation_accuracy is None
    assert model.metadata.training.calibration is None
    assert model.golden is not None


def test_the_report_lies_beside_the_weights_and_names_its_version(
    train: Train, models: Path, data: Path
) -> None:
    lines: list[str] = []
    for version in (1, 2):
        done = train("--data", data, *GOOD)
        report = weights_path(models, "thirds", version).with_name("report.html")
        assert f"<title>thirds version {version}</title>" in report.read_text()
        lines = done.stdout.splitlines()
        assert lines[-version].endswith(f"; see {report}")
    assert lines[-1] == (
        "is it better than version 1? mlpserve-models compare thirds:1 thirds:2 "
        f"--data {data} --models {models}"
    )


def test_the_command_that_compares_to_the_version_before_runs_as_it_is_printed(
    train: Train, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--transpose", "--shape", "6x4", "--test-data", str(data)]
    printed = ""
    for _ in range(2):
        printed = train("--data", data, "--name", "turned", *flags, *GOOD).stdout
    program, *arguments = shlex.split(printed.splitlines()[-1].partition("? ")[2])
    assert program == "mlpserve-models"
    assert set(flags) < set(arguments)
    assert models_main(arguments) == 0
    assert "100 test images" in capsys.readouterr().out


def test_a_report_that_cannot_be_made_does_not_keep_the_version_from_being_published(
    models: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publication, "render_report", lambda *_: 1 / 0)
    assert main(["--data", str(data), "--models", str(models), *GOOD]) == 0
    assert not weights_path(models, "thirds", 1).with_name("report.html").exists()
    assert load_version(models, "thirds", 1).metadata.version == 1
    assert "the report could not be made; the version is published without" in caplog.text


def test_no_report_is_published_where_none_is_wanted(
    train: Train, models: Path, data: Path
) -> None:
    done = train("--data", data, *GOOD, "--no-report")
    assert sorted(path.name for path in (models / "thirds" / "1").iterdir()) == [
        "weights.npz",
        "weights.npz.sha256",
    ]
    assert "report.html" not in done.stdout


def test_what_is_less_accurate_than_asked_for_is_not_published(
    train: Train, models: Path, data: Path
) -> None:
    done = train("--data", data, *BAD, "--min-accuracy", "0.99")
    assert done.returncode == 1
    assert re.fullmatch(
        r"mlpserve-train: not published: the test accuracy is \d+\.\d\d %, "
        r"and --min-accuracy asks for 99 %\n",
        done.stderr,
    )
    assert versions(models, "thirds") == []
    assert train("--data", data, *GOOD, "--min-accuracy", "0.99").returncode == 0
    assert versions(models, "thirds") == [1]


def test_what_is_worse_than_another_version_is_not_published_and_what_is_as_good_is(
    train: Train, models: Path, data: Path
) -> None:
    assert train("--data", data, *GOOD, "--name", "good").returncode == 0
    set_label(models, "good", "stable", 1)
    done = train("--data", data, *BAD, "--compare-to", "good:stable")
    assert done.returncode == 1
    assert re.fullmatch(
        r"mlpserve-train: not published: the test accuracy is \d+\.\d\d %, "
        r"and version 1 of 'good' has \d+\.\d\d % on the same images\n",
        done.stderr,
    )
    assert versions(models, "thirds") == []
    assert train("--data", data, *GOOD, "--compare-to", "good:1").returncode == 0
    assert versions(models, "thirds") == [1]


def test_what_a_version_cannot_be_compared_to_is_found_out_before_training(
    train: Train, models: Path, data: Path, tmp_path: Path
) -> None:
    assert train("--data", data, *GOOD, "--name", "good").returncode == 0
    labels = np.arange(8) % 2
    for name, shape in (("larger", (5, 6)), ("more", (4, 6))):
        labels = np.where(labels == 1, 5, 0) if name == "more" else labels
        images = np.zeros((8, *shape), np.uint8)
        np.savez(
            tmp_path / f"{name}.npz", x_train=images, y_train=labels, x_test=images, y_test=labels
        )
    for source, reference, cause in (
        (data, "better", f"{models}: has no model 'better'; it has good"),
        (data, "good:7", f"{models / 'good'}: has no version 7; it has 1"),
        (tmp_path / "larger.npz", "good", "images: the network takes images of (4, 6), got (5, 6)"),
        (tmp_path / "more.npz", "good", "labels: the network knows 3 classes, from 0, but a label"),
    ):
        done = train("--data", source, "--validation-share", "0", "--compare-to", reference)
        assert done.returncode == 1
        assert done.stderr.startswith(f"mlpserve-train: --compare-to: {cause}")
        assert "epoch" not in done.stdout


def test_a_time_limit_ends_the_training_and_publishes_what_was_learned(
    train: Train, models: Path, data: Path
) -> None:
    done = train("--data", data, "--epochs", "1000000", "--time-limit", "0.3")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^trained for \d+\.\d s, [0-9,]+ images/s: the time limit of 0\.3 s is reached$",
        done.stdout,
        re.MULTILINE,
    )
    assert versions(models, "thirds") == [1]


def test_a_time_limit_before_the_first_epoch_publishes_too(
    train: Train, models: Path, data: Path
) -> None:
    done = train("--data", data, "--time-limit", "1e-9")
    assert (done.returncode, done.stderr) == (0, "")
    assert (models / "thirds" / "1" / "report.html").exists()


def test_patience_ends_the_training_with_the_best_network(
    train: Train, models: Path, data: Path
) -> None:
    flags = "--epochs 1000 --patience 3 --learning-rate 0.05 --dropout 0.5 --schedule constant"
    flags += " --batch-size 16 --validation-share 0.2 --log-format json"
    done = train("--data", data, *flags.split())
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    (trained,) = (event for event in events if event["event"] == "trained")
    losses = [epoch["validation_loss"] for epoch in epochs]
    best = int(np.argmin(losses))
    assert len(epochs) == best + 4
    assert trained["ended_because"] == (
        f"the validation loss has not fallen for 3 epochs; the network of epoch {best + 1} is kept"
    )
    training = load_version(models, "thirds", 1).metadata.training
    assert training.validation_accuracy == epochs[best]["validation_accuracy"]
