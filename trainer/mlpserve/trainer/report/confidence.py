"""Confidence: how far it can be trusted, before and after calibration."""

import math
from collections.abc import Mapping
from typing import Any, Final

from mlpserve.model.metadata import Calibration
from mlpserve.trainer.calibration import without_temperature
from mlpserve.trainer.evaluation import (
    CALIBRATION_BINS,
    Evaluation,
    ReliabilityBin,
    expected_calibration_error,
    reliability,
)
from mlpserve.trainer.report.axes import linear_axis
from mlpserve.trainer.report.charts import Chart, UncertainPoint
from mlpserve.trainer.report.formats import Table, counted, percent

_Z_95: Final = 1.96  # 95 % of a normal distribution is within so many standard deviations


def confidence_section(
    evaluation: Evaluation, calibration: Calibration | None
) -> Mapping[str, Any]:
    """Return reliability charts of the network as it is, and as it was before its calibration."""
    judged = _judged(evaluation, calibration)
    return {
        "bins": CALIBRATION_BINS,
        "explanation": _explanation(calibration),
        "charts": [_chart(title, style, each) for title, style, each in judged],
        "tables": [_table(title, each) for title, _, each in judged],
    }


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share that was counted among ``count``.

    With p the share, n the count and z = 1.96, the interval holds each share q from which p is no
    more than z standard deviations away, ``|p - q| <= z sqrt(q (1 - q) / n)``. Squared, that is a
    quadratic inequality in q, and between its roots are

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Source: Wilson, Probable Inference (1927).
    """
    square = _Z_95**2 / count
    half = _Z_95 * math.sqrt(share * (1 - share) / count + square / (4 * count))
    middle = share + square / 2
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


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


def _chart(title: str, style: str, evaluation: Evaluation) -> Chart:
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


def _point(part: ReliabilityBin) -> UncertainPoint:
    low, high = wilson_interval(part.accuracy, part.count)
    text = (
        f"{counted(part.count, 'image', 'images')}: confidence {percent(part.confidence)}, "
        f"accuracy {percent(part.accuracy)}"
    )
    return UncertainPoint(100 * part.confidence, 100 * part.accuracy, 100 * low, 100 * high, text)


def _table(title: str, evaluation: Evaluation) -> Table:
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
