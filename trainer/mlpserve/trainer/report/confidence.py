"""Confidence: how far it can be trusted, before and after calibration."""

from collections.abc import Mapping
from typing import Any

from mlpserve.model.metadata import Calibration
from mlpserve.trainer.calibration import without_temperature
from mlpserve.trainer.evaluation import Evaluation
from mlpserve.trainer.reliability import (
    CALIBRATION_BINS,
    ReliabilityBin,
    expected_calibration_error,
    reliability,
)
from mlpserve.trainer.report.axes import linear_axis
from mlpserve.trainer.report.charts import Chart, UncertainPoint
from mlpserve.trainer.report.formats import Table, counted, percent
from mlpserve.trainer.statistics import wilson_interval


def confidence_section(
    evaluation: Evaluation, calibration: Calibration | None
) -> Mapping[str, Any]:
    """Return reliability charts of the network as it is, and as it was before its calibration."""
    judged = _judged(evaluation, calibration)
    return {
        "bins": CALIBRATION_BINS,
        "explanation": _explanation(calibration),
        "charts": [reliability_chart(title, style, each) for title, style, each in judged],
        "tables": [reliability_table(title, each) for title, _, each in judged],
    }


def reliability_chart(title: str, style: str, evaluation: Evaluation) -> Chart:
    """Return a chart of how often a network is right, by how sure it is.

    Args:
        title: Which network it is.
        style: The class of the points in the style sheet.
        evaluation: What the network said.
    """
    error = percent(expected_calibration_error(evaluation))
    axis = linear_axis([0, 100], suffix=" %")
    return Chart(
        title=f"Accuracy {title} (error {error})",
        description=f"accuracy by confidence {title}; expected calibration error {error}",
        x_label="confidence",
        x_axis=axis,
        y_axis=axis,
        points=[_point(part) for part in reliability(evaluation)],
        style=style,
    )


def reliability_table(title: str, evaluation: Evaluation) -> Table:
    """Return the figures of ``reliability_chart``."""
    heads = ("range", "images", "mean confidence", "accuracy")
    rows = [
        (
            f"{percent(part.lower, decimals=1)} to {percent(part.upper, decimals=1)}",
            f"{part.count:,}",
            percent(part.confidence),
            percent(part.accuracy),
        )
        for part in reliability(evaluation)
    ]
    return title.capitalize(), heads, rows


def _judged(
    evaluation: Evaluation, calibration: Calibration | None
) -> list[tuple[str, str, Evaluation]]:
    if calibration is None:
        return [("as served", "first", evaluation)]
    before = without_temperature(evaluation, calibration.temperature)
    return [("before calibration", "second", before), ("as served", "first", evaluation)]


def _explanation(calibration: Calibration | None) -> str:
    if calibration is None:
        return "Its probabilities were not calibrated."
    return (
        "Its probabilities were calibrated on the validation split with the temperature "
        f"{calibration.temperature:.3f}: above 1 makes a network less sure, below 1 surer. Which "
        "class is the most probable does not change."
    )


def _point(part: ReliabilityBin) -> UncertainPoint:
    low, high = wilson_interval(part.accuracy, part.count)
    text = (
        f"{counted(part.count, 'image', 'images')}: confidence {percent(part.confidence)}, "
        f"accuracy {percent(part.accuracy)}"
    )
    return UncertainPoint(100 * part.confidence, 100 * part.accuracy, 100 * low, 100 * high, text)
