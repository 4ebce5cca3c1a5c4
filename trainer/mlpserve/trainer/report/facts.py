"""Facts: the few figures that are asked for first, and how the version was made."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC

from mlpserve.model.metadata import Calibration, Training
from mlpserve.model.out_of_distribution import OodDetector
from mlpserve.model.weights import Model
from mlpserve.trainer.evaluation import Evaluation
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.reliability import expected_calibration_error
from mlpserve.trainer.report.formats import counted, duration, percent


def headline(
    training: Training, history: Sequence[EpochRecord], evaluation: Evaluation
) -> Sequence[tuple[str, str, str]]:
    """Return the few figures that are asked for first, each with its name and a note."""
    return [
        *_accuracies(training, evaluation),
        ("Test loss", f"{evaluation.cross_entropy:.4f}", "mean cross-entropy, nats"),
        _calibration_figure(evaluation, training.calibration),
        *_time_figures(history),
    ]


def facts_section(model: Model, evaluation: Evaluation) -> Mapping[str, Mapping[str, str]]:
    """Return how the version was made, in groups: all that is needed to make it again."""
    training = model.metadata.training
    return {
        "Network": _network_facts(model),
        "Recipe": {
            "name": training.recipe,
            "seed": str(training.seed),
            **_texts(training.hyperparameters),
        },
        "Data": {
            "name": training.data_name,
            "digest": training.data_digest,
            "test images": f"{len(evaluation):,}"
            + (f": {training.test_origin}" if training.test_origin else ""),
        },
        "Made": {
            "at": f"{training.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
            **_texts(training.library_versions),
        },
    }


def _network_facts(model: Model) -> dict[str, str]:
    metadata = model.metadata
    return {
        "layers": "-".join(map(str, metadata.layer_sizes)),
        "activations": ", ".join(metadata.activations),
        "parameters": f"{sum(array.size for array in model.network.parameters):,}",
        "image": " x ".join(map(str, metadata.input.shape)),
        "values": str(metadata.input.value_range or "bytes, or 0 to 1"),
        "classes": f"{len(metadata.class_labels):,}",
        "unlike its data": _out_of_distribution(model.detector),
    }


def _out_of_distribution(detector: OodDetector | None) -> str:
    if detector is None:
        return "not told: there were too few images to fit a score to"
    return (
        f"a score above {detector.threshold:.3f}, as {percent(detector.test_share)} of the test "
        "images have"
    )


def _accuracies(training: Training, evaluation: Evaluation) -> Iterable[tuple[str, str, str]]:
    wrong = int((~evaluation.is_right).sum())
    yield "Test accuracy", percent(evaluation.accuracy), f"{wrong:,} of {len(evaluation):,} wrong"
    validation = training.validation_accuracy
    if validation is not None:
        yield "Validation accuracy", percent(validation), "images it did not learn from"
    yield "Training accuracy", percent(training.train_accuracy), "images it learned from"


def _calibration_figure(
    evaluation: Evaluation, calibration: Calibration | None
) -> tuple[str, str, str]:
    note = "not calibrated"
    if calibration is not None:
        before = percent(calibration.expected_calibration_error_before)
        note = f"{before} before, temperature {calibration.temperature:.2f}"
    return "Calibration error", percent(expected_calibration_error(evaluation)), note


def _time_figures(history: Sequence[EpochRecord]) -> Iterable[tuple[str, str, str]]:
    if history:
        speed = statistics.median(record.images_per_s for record in history)
        epochs = counted(len(history), "epoch", "epochs")
        yield "Training time", duration(history[-1].elapsed_s), f"{epochs}, {speed:,.0f} images/s"


def _texts(values: Mapping[str, str | int | float]) -> dict[str, str]:
    return {name.replace("_", " "): str(value) for name, value in values.items()}
