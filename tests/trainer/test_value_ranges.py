"""Data of any range: found, told, trained on, judged, exported, and served from the raw values."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from mlpserve.client import Client
from mlpserve.datasets import Dataset, DatasetError, Split
from mlpserve.model.__main__ import main as models_main
from mlpserve.model.inputs import InputSpec, ValueRange
from mlpserve.model.weights import load_model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.trainer.evaluate import main as evaluate_main
from mlpserve.trainer.evaluation import Evaluation, is_at_chance
from mlpserve.trainer.export.onnx_file import to_bytes
from mlpserve.trainer.learning.batches import ShuffledBatches, WholeBatch
from mlpserve.trainer.learning.warps import WarpSettings, warp
from mlpserve.trainer.value_ranges import find_range

Train = Callable[..., "subprocess.CompletedProcess[str]"]
Values = npt.NDArray[Any]
SHAPE = (5, 6)
FLAGS = ("--epochs", 8, "--layers", 16, "--batch-size", 16, "--warp", "none")
FAST = (*FLAGS, "--no-report")


def shares() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return images of three classes, from 0 to 1, both ends among them, and their classes."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 400)
    patterns = rng.random((3, *SHAPE)) > 0.5
    images = np.clip(0.8 * patterns[labels] + rng.normal(0, 0.12, (400, *SHAPE)), 0, 1)
    return images, labels


SHARES, LABELS = shares()
KINDS: dict[str, tuple[Values, str, ValueRange | None]] = {
    "bytes": ((255 * SHARES).astype(np.uint8), "0 to 255 (8 bits)", None),
    "shares": (SHARES.astype(np.float32), "0 to 1", None),
    "sixteen": (np.rint(16 * SHARES), "0 to 16 (as the digits", ValueRange(0, 16)),
    "int64": (np.rint(16 * SHARES).astype(np.int64), "0 to 16 (as the", ValueRange(0, 16)),
    "signed": ((2 * SHARES - 1).astype(np.float32), "-1 to 1", ValueRange(-1, 1)),
    "mask": (SHARES > 0.4, "0 to 1 (1 bit)", ValueRange(0, 1)),
    "bits12": ((4095 * SHARES).astype(np.uint16), "0 to 4095 (12 bits)", ValueRange(0, 4095)),
    "bits16": ((65535 * SHARES).astype(np.uint16), "0 to 65535 (16", ValueRange(0, 65535)),
    "floats": (np.rint(255 * SHARES), "0 to 255 (8 bits)", ValueRange(0, 255)),
    "standard": ((SHARES - 0.3) / 0.25, "-1.21 to 2.8", ValueRange(-1.21, 2.8)),
}


def write(path: Path, images: Values, labels: npt.NDArray[np.int64] = LABELS) -> Path:
    np.savez(
        path, x_train=images[:300], y_train=labels[:300], x_test=images[300:], y_test=labels[300:]
    )
    return path


def dataset(train: Values, test: Values | None = None) -> Dataset:
    first, second = (
        Split(each, np.arange(len(each)) % 2) for each in (train, train if test is None else test)
    )
    return Dataset("made", ("a", "b"), first, second)


def test_raw_values_of_any_range_are_classified_rightly_wherever_they_are_sent(
    train: Train, models: Path, tmp_path: Path
) -> None:
    for name, (images, told, value_range) in KINDS.items():
        done = train("--data", write(tmp_path / f"{name}.npz", images), *FAST)
        assert done.returncode == 0, done.stderr
        assert f"taken for {told}" in done.stdout
        assert ("--range" in done.stdout) == (value_range is not None)
        assert "warning" not in done.stdout
        assert load_model(models / name / "1" / "weights.npz").metadata.input == InputSpec(
            SHAPE, value_range=value_range
        )
    server = Server(ServerConfig(models=models, port=0))
    server.start()
    try:
        with Client(server.address) as client:
            for name, (images, _, _) in KINDS.items():
                found = client.predict(images[300:], model=name)
                assert np.mean(found.labels == LABELS[300:]) > 0.95, name
    finally:
        server.stop()
    for name, (images, _, _) in KINDS.items():
        model = load_model(models / name / "1" / "weights.npz")
        session = onnxruntime.InferenceSession(to_bytes(model))
        values = images[300:].reshape(100, -1).astype(np.float32)
        values = values / np.float32(255) if name == "bytes" else values
        (found,) = session.run(None, {"images": values})
        assert np.mean(found.argmax(axis=1) == LABELS[300:]) > 0.95, name


def test_a_version_is_judged_by_values_of_its_range_only(
    train: Train, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "sixteen.npz", KINDS["sixteen"][0])
    train("--data", data, *FAST)
    judge = ["--model", f"{models}/sixteen", "--output", "json", "--data"]
    evaluate_main([*judge, str(data)])
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.95
    others = write(tmp_path / "bytes.npz", KINDS["bytes"][0])
    with pytest.raises(DatasetError, match="expected uint8 values from 0 to 16, got 0 to 255; sc"):
        evaluate_main([*judge, str(others)])


def test_a_stated_range_is_taken_and_must_hold_all_values(
    train: Train, models: Path, tmp_path: Path
) -> None:
    data = write(tmp_path / "dim.npz", np.rint(10 * SHARES))
    done = train("--data", data, *FAST, "--range", "0,12")
    assert "values from 0 to 10, taken for 0 to 12\n" in done.stdout
    spec = load_model(models / "dim" / "1" / "weights.npz").metadata.input
    assert spec.value_range == ValueRange(0, 12)
    refused = train("--data", data, *FAST, "--range=-1,8")
    assert (refused.returncode, refused.stdout.count("published")) == (1, 0)
    assert "--range: expected a range that has all values, got -1 to 8" in refused.stderr
    for text, message in (("3", "got '3'"), ("a,b", "in 0,16, got 'a,b'"), ("2,1", "got 2 to 1")):
        wrong = train("--data", data, f"--range={text}")
        assert wrong.returncode == 2
        assert message in wrong.stderr


def test_a_run_of_another_range_does_not_go_on_from_a_checkpoint(
    train: Train, tmp_path: Path
) -> None:
    labels = np.random.default_rng(6).integers(0, 3, 400)
    data = write(tmp_path / "sixteen.npz", KINDS["sixteen"][0], labels)
    kept = (*FAST, "--checkpoint", tmp_path / "checkpoints", "--min-accuracy", 1, "--epochs", 1)
    assert train("--data", data, *kept).returncode == 1
    other = train("--data", data, *kept, "--range", "0,20", "--resume")
    assert "it is of another run: expected value range 0 to 20, as now, got 0 to 16" in other.stderr


def test_a_network_that_learned_nothing_is_published_with_a_warning_everywhere(
    train: Train, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.random.default_rng(6).integers(0, 3, 400)
    data = write(tmp_path / "noise.npz", np.zeros_like(SHARES, np.uint8), labels)
    done = train("--data", data, *FLAGS)
    assert done.returncode == 0
    assert "warning: all values of the training images are 0, so there is nothing" in done.stdout
    assert "no better than always naming the most frequent class" in done.stdout
    folder = models / "noise" / "1"
    warnings = load_model(folder / "weights.npz").metadata.training.warnings
    assert len(warnings) == 2
    assert all(warning in (folder / "report.html").read_text() for warning in warnings)
    models_main(["--models", str(models), "show", "noise"])
    assert warnings[1] in capsys.readouterr().out
    events = train("--data", data, *FLAGS, "--log-format", "json").stdout.splitlines()
    assert [json.loads(each)["event"] for each in events].count("warning") == 2
    assert train("--data", data, *FAST, "--min-accuracy", 0.9).returncode == 1


def test_one_class_is_nothing_to_learn(train: Train, models: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "ones.npz", SHARES, np.ones_like(LABELS))
    done = train("--data", data, *FAST)
    assert done.returncode == 1
    assert "images to learn from are of one class, '1', so there is nothing to learn" in done.stderr
    assert not (models / "ones").exists() or not list((models / "ones").glob("[0-9]*"))


@pytest.mark.parametrize(
    ("train_values", "test_values", "message"),
    [
        (
            SHARES.astype(np.float32) / 255,
            None,
            r"as if bytes had been divided by 255 twice: divide them once, or say --range 0,0.0039",
        ),
        (np.full((4, 2, 2), 7, np.uint8), None, "all values of the training images are 7, so"),
        (
            np.array([[[0, 1.0000001]], [[1, 0]]], np.float32),
            None,
            r"values are 0 to 1.0000001, a little beyond 1: numpy.clip\(images, 0, 1\) removes",
        ),
        (
            np.array([[[0, 1]], [[1, 0]]], np.float32),
            np.array([[[0, 255]]], np.float32),
            "training images have values from 0 to 1, and the test images from 0 to 255: scale",
        ),
        (
            np.eye(3, 400, dtype=np.uint8).reshape(3, 20, 20),
            None,
            "99.2 % of the values of an image are the same in all training images",
        ),
    ],
    ids=["twice", "one value", "rounding", "test beyond", "constant"],
)
def test_what_looks_like_a_mistake_is_told_with_what_to_do(
    train_values: Values, test_values: Values | None, message: str
) -> None:
    (warning,) = find_range(dataset(train_values, test_values), None).warnings
    assert message.replace("\\", "") in warning


@pytest.mark.parametrize(
    ("lowest", "highest", "dtype", "expected"),
    [
        (0, 200, np.uint8, None),
        (0, 64, np.uint8, None),
        (0, 63, np.uint8, ValueRange(0, 63)),
        (0, 9, np.uint8, ValueRange(0, 15)),
        (0, 0, np.uint8, None),
        (0, 700, np.int32, ValueRange(0, 1023)),
        (0, 10_000, np.int32, ValueRange(0, 16383)),
        (0, 10**6, np.int32, ValueRange(0, 10**6)),
        (-1024, 3071, np.int32, ValueRange(-1030, 3080)),
        (0, 0.5, np.float32, None),
        (0, 1, np.float32, None),
        (0, 15.5, np.float32, ValueRange(0, 16)),
        (-0.25, 0.75, np.float32, ValueRange(-1, 1)),
        (280, 310, np.float32, ValueRange(280, 310)),
    ],
)
def test_the_range_is_the_usual_one_that_has_all_values(
    lowest: float, highest: float, dtype: type, expected: ValueRange | None
) -> None:
    images: Values = np.array([[[lowest, highest]], [[highest, lowest]]], dtype)
    assert find_range(dataset(images), None).value_range == expected


def test_values_that_no_range_has_are_refused() -> None:
    for values, message in (([1000, 1001], "subtract the lowest"), ([0, 1e20], "none beyond 1e")):
        with pytest.raises(DatasetError, match=message):
            find_range(dataset(np.array([[values]] * 2, np.float32)), None)


def test_black_is_the_lowest_value_where_pixels_are_left_out_and_beside_warped_images() -> None:
    spec = InputSpec((4, 4), value_range=ValueRange(-1, 1))
    values = np.full((6, 4, 4), -1, np.float32)
    values[:, 1:3, 1:3] = np.random.default_rng(1).random((6, 2, 2)) - 1
    split = Split(values, np.zeros(6, np.int64))
    for batches in (
        WholeBatch(split, spec),
        ShuffledBatches(split, spec, batch_size=6, seed=1, skips_zero_columns=True),
    ):
        out = np.empty((6, 16), np.float32)
        columns = batches.batch(0, 0).fill(slice(0, 6), out)
        assert columns is not None
        np.testing.assert_array_equal(columns, [5, 6, 9, 10])
        np.testing.assert_allclose(
            np.sort(out[:, :4].ravel()), np.sort((values[:, 1:3, 1:3].ravel() + 1) / 2)
        )
    still, shifted = np.empty((6, 16), np.float32), np.empty((6, 16), np.float32)
    warp(values, WarpSettings(), np.random.default_rng(1), out=still, spec=spec)
    np.testing.assert_array_equal(still, spec.scale(values))
    warp(values, WarpSettings(shift_px=9), np.random.default_rng(1), out=shifted, spec=spec)
    assert shifted.min() == 0


@pytest.mark.parametrize(
    ("right", "count", "at_chance"),
    [(50, 100, True), (54, 100, True), (60, 100, False), (1, 2, True), (4, 4, False)],
)
def test_chance_is_the_most_frequent_class_and_a_little_luck(
    right: int, count: int, *, at_chance: bool
) -> None:
    labels = np.arange(count) % 2
    predicted = labels.copy()
    predicted[right:] = 1 - predicted[right:]
    evaluation = Evaluation(np.eye(2, dtype=np.float32)[predicted], labels)
    assert is_at_chance(evaluation) == at_chance


def test_one_class_of_test_images_is_no_chance() -> None:
    labels = np.zeros(9, np.int64)
    assert not is_at_chance(Evaluation(np.eye(2, dtype=np.float32)[1 - labels], labels))
