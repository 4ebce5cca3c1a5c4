import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from html_page import Page, check_needs_nothing
from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Calibration, Metadata, Training
from mlpserve.model.weights import Model
from mlpserve.trainer.calibration import with_temperature
from mlpserve.trainer.evaluation import Evaluation, evaluate
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.learning.initialization import he
from mlpserve.trainer.report import render_report

CALIBRATION = Calibration(1.7, 0.05, 0.01)


def model_of(
    shape: tuple[int, ...] = (4, 4),
    *,
    hidden: tuple[int, ...] = (6,),
    class_labels: Sequence[str] = ("cat", "dog", "bird"),
    data_name: str = "pets",
    validation_accuracy: float | None = 0.75,
    calibration: Calibration | None = CALIBRATION,
) -> Model:
    spec = InputSpec(shape)
    sizes = (spec.values_per_image, *hidden, len(class_labels))
    network = he(sizes, "relu", seed=1).astype(np.float32)
    training = Training(
        recipe="fast",
        hyperparameters={"learning_rate": 0.01, "epochs": 3, "schedule": "one-cycle"},
        seed=7,
        data_name=data_name,
        data_digest="sha256:0123",
        train_accuracy=0.96875,
        test_accuracy=0.5,
        created_at=datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
        library_versions={"numpy": "2.0.0"},
        validation_accuracy=validation_accuracy,
        calibration=calibration,
    )
    metadata = Metadata(
        name="tiny",
        version=3,
        layer_sizes=network.layer_sizes,
        activations=network.activations,
        input=spec,
        class_labels=tuple(class_labels),
        training=training,
    )
    return Model(network, metadata)


def split_of(model: Model, *, count: int = 40, dtype: Any = np.uint8) -> Split:
    rng = np.random.default_rng(2)
    shape = (count, *model.metadata.input.shape)
    images: npt.NDArray[Any] = (
        rng.integers(0, 256, shape, np.uint8) if dtype == np.uint8 else rng.random(shape, dtype)
    )
    return Split(images, rng.integers(0, len(model.metadata.class_labels), count))


def history_of(epochs: int, *, has_validation: bool = True) -> list[EpochRecord]:
    return [
        EpochRecord(
            epoch=epoch,
            learning_rate=0.01 * (1 - epoch / epochs),
            train_loss=1 / (1 + epoch),
            train_accuracy=1 - 0.5 / (1 + epoch),
            validation_loss=1.1 / (1 + epoch) if has_validation else None,
            validation_accuracy=1 - 0.6 / (1 + epoch) if has_validation else None,
            elapsed_s=2.0 * epoch + 2,
            images_per_s=30_000.0,
        )
        for epoch in range(epochs)
    ]


def report_of(
    model: Model,
    *,
    split: Split | None = None,
    history: Sequence[EpochRecord] | None = None,
) -> str:
    split = split_of(model) if split is None else split
    return render_report(
        model,
        history_of(3) if history is None else history,
        evaluate(model.network, model.metadata.input, split),
        split,
    )


def always_right(model: Model) -> Split:
    """Return a split whose every label is what the model says."""
    split = split_of(model)
    evaluation = evaluate(model.network, model.metadata.input, split)
    return Split(split.images, evaluation.predicted)


SECTIONS = [
    "tiny version 3",
    "How it learned",
    "Where it is wrong",
    "Its most confident mistakes",
    "How far its confidence can be trusted",
    "What the first layer looks for",
    "How it was made",
]


def test_a_report_shows_all_that_it_promises() -> None:
    model = model_of()
    page = Page(report_of(model))
    assert page.headings == SECTIONS
    expected = [
        *("Test accuracy", "75.00\xa0%", "96.88\xa0%", "temperature 1.70", "3\xa0epochs"),
        *("cat", "dog", "bird", "precision", "recall", "validation", "16-6-3", "pets"),
        *("sha256:0123", "fast", "one-cycle", "2024-02-29 23:59:59 UTC", "2.0.0", "6.0\xa0s"),
    ]
    for text in expected:
        assert text in page.text
    assert page.tags.count("svg") == 5  # loss, accuracy, learning rate, reliability twice
    assert all(page.values("aria-label"))
    assert all(page.values("alt"))


def test_a_report_needs_nothing_but_itself() -> None:
    check_needs_nothing(report_of(model_of()))


def test_the_same_run_gives_the_same_bytes() -> None:
    assert report_of(model_of()) == report_of(model_of())


def test_times_are_in_utc_wherever_they_are_from() -> None:
    model = model_of()
    in_tokyo = model.metadata.training.created_at.astimezone(timezone(timedelta(hours=9)))
    training = replace(model.metadata.training, created_at=in_tokyo)
    moved = Model(model.network, replace(model.metadata, training=training))
    assert report_of(moved) == report_of(model)


def test_names_from_data_cannot_become_markup() -> None:
    hostile = '<script>alert("1")</script>'
    labels = (hostile, "\"'><img src=x onerror=alert(1)>", "&lt;b&gt;\x00\u202e\ud800 \u3000")
    report = report_of(model_of(class_labels=labels, data_name="</style><b>"))
    page = Page(report)
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for text in (hostile, labels[1], "</style><b>", "&lt;b&gt;\ufffd\ufffd\ufffd \u3000"):
        assert text in page.text
    report.encode()


MANY = [f"class {number}" for number in range(65_536)]

ODD_MODELS = {
    "no hidden layer": model_of(hidden=()),
    "three hidden layers": model_of(hidden=(5, 4, 3)),
    "very wide": model_of(hidden=(3000,)),
    "one unit": model_of(hidden=(1,)),
    "two classes": model_of(class_labels=("no", "yes")),
    "one class": model_of(class_labels=("thing",)),
    "long names": model_of(class_labels=("an ankle boot " * 30, "x" * 500, "")),
    "as many classes as a matrix shows": model_of(class_labels=MANY[:64]),
    "more classes than a matrix shows": model_of(class_labels=MANY[:65]),
    "wide images": model_of((2, 9)),
    "tall images": model_of((200, 3)),
    "coloured images": model_of((5, 6, 3)),
    "colours first": model_of((3, 5, 6)),
    "grey with a dimension for it": model_of((5, 6, 1)),
    "four dimensions": model_of((2, 3, 2, 2)),
    "flat images of a square": model_of((25,)),
    "flat images of no square": model_of((27,)),
    "one value": model_of((1,)),
    "large images": model_of((150, 131)),
}


@pytest.mark.parametrize("model", ODD_MODELS.values(), ids=ODD_MODELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_model_has_a_report(model: Model, dtype: Any) -> None:
    page = report_of(model, split=split_of(model, dtype=dtype))
    assert Page(page).headings == SECTIONS
    assert len(page.encode()) < 1_000_000


def test_65536_classes_have_a_report_that_says_what_it_leaves_out() -> None:
    model = model_of((2, 2), hidden=(2,), class_labels=MANY)
    page = report_of(model)
    assert "The 64 of 65,536 classes with the lowest recall" in page
    assert "a matrix of 65,536 classes would be too large to read" in page
    assert len(page.encode()) < 1_000_000
    assert Page(page).headings == SECTIONS


def test_what_is_left_out_is_said() -> None:
    text = Page(report_of(model_of(hidden=(49,)), history=history_of(1000))).text
    assert "The 48 most influential of 49 units." in text
    assert "Epochs at equal distances" in text
    assert "All 6\xa0units" in Page(report_of(model_of(hidden=(6,)))).text
    many = model_of(class_labels=MANY[:49], hidden=())
    assert "The first 48 of 49 classes" in Page(report_of(many)).text


ODD_HISTORIES = {
    "none": [],
    "one epoch": history_of(1),
    "41 epochs": history_of(41),
    "many epochs": history_of(20_000),
    "without validation": history_of(5, has_validation=False),
    "nothing changes": [replace(record, train_loss=0.5) for record in history_of(1) * 4],
    "all zero": [
        replace(record, learning_rate=0.0, train_loss=0.0, train_accuracy=0.0, validation_loss=0.0)
        for record in history_of(3)
    ],
    "not finite": [
        replace(record, train_loss=float("nan"), validation_loss=float("inf"))
        for record in history_of(3)
    ],
    "validation now and then": [
        record
        if record.epoch % 3
        else replace(record, validation_loss=None, validation_accuracy=None)
        for record in history_of(9)
    ],
    "enormous": [
        replace(record, train_loss=10.0 ** (3 * record.epoch)) for record in history_of(99)
    ],
}


@pytest.mark.parametrize("history", ODD_HISTORIES.values(), ids=ODD_HISTORIES)
def test_every_history_has_a_report(history: list[EpochRecord]) -> None:
    page = report_of(model_of(), history=history)
    assert Page(page).headings == SECTIONS
    assert len(page.encode()) < 1_000_000


def test_what_a_run_did_not_have_is_not_shown() -> None:
    plain = model_of(calibration=None, validation_accuracy=None)
    page = Page(report_of(plain, history=history_of(3, has_validation=False)))
    assert "Validation accuracy" not in page.text
    assert "There was no validation split." in page.text
    assert "Its probabilities were not calibrated." in page.text
    assert page.tags.count("svg") == 4


def test_a_network_without_mistakes_shows_none() -> None:
    model = model_of()
    page = Page(report_of(model, split=always_right(model)))
    assert "It classifies all 40\xa0test images rightly." in page.text
    assert "There is none: every test image is classified rightly." in page.text


def test_a_single_test_image_is_enough() -> None:
    model = model_of()
    text = Page(report_of(model, split=split_of(model, count=1))).text
    assert "1\xa0test image" in text


def test_the_chart_before_calibration_is_that_of_the_network_before_it() -> None:
    model = model_of()
    calibrated = Model(with_temperature(model.network, 1.7), model.metadata)
    split = split_of(model, count=400)
    before = re.search(r"before calibration \(error ([0-9.]+)", report_of(calibrated, split=split))
    plain = model_of(calibration=None)
    uncalibrated = re.search(r"as served \(error ([0-9.]+)", report_of(plain, split=split))
    assert before
    assert uncalibrated
    assert before[1] == uncalibrated[1]


@pytest.mark.parametrize("what", ["count", "labels", "classes"])
def test_an_evaluation_of_something_else_is_refused(what: str) -> None:
    model = model_of()
    split = split_of(model)
    probabilities = np.full((40, 3), 1 / 3, np.float32)
    evaluation = {
        "count": Evaluation(probabilities[:9], split.labels[:9]),
        "labels": Evaluation(probabilities, (split.labels + 1) % 3),
        "classes": Evaluation(np.full((40, 4), 0.25, np.float32), split.labels),
    }[what]
    with pytest.raises(ValueError, match="evaluation: expected"):
        render_report(model, [], evaluation, split)
