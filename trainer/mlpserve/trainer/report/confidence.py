"""How far the network's confidence can be trusted: reliability, before and after calibration."""

import math
from typing import Final

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
from mlpserve.trainer.report.blocks import (
    captioned,
    counted,
    folded,
    paragraph,
    percent,
    section,
    table,
)
from mlpserve.trainer.report.charts import UncertainPoint, reliability_chart
from mlpserve.trainer.report.markup import Markup, element

_Z_95: Final = 1.96  # 95 % of a normal distribution is within so many standard deviations
_HOW_TO_READ: Final = (
    "Images are put together by how sure the network is of them, in "
    f"{CALIBRATION_BINS} ranges. Where it is as often right as it is sure, the point is on the "
    "dotted line; below it, the network is too sure. Bars are 95 % confidence intervals, long "
    "where there are few images. The error is how far confidence and accuracy are apart, "
    "as the mean of all images."
)


def confidence_section(evaluation: Evaluation, calibration: Calibration | None) -> Markup:
    """Return reliability charts of the network as it is, and as it was before its calibration."""
    judged = _judged(evaluation, calibration)
    charts = [_chart(title, style, each) for title, style, each in judged]
    tables = [_table(title, each) for title, _, each in judged]
    text = element("div", paragraph(_HOW_TO_READ), paragraph(_explanation(calibration)))
    return section(
        "How far its confidence can be trusted",
        element("div", text, *charts, class_="charts"),
        folded("All figures", element("div", *tables, class_="beside-each-other")),
    )


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


def _chart(title: str, style: str, evaluation: Evaluation) -> Markup:
    error = percent(expected_calibration_error(evaluation))
    chart = reliability_chart(
        [_point(part) for part in reliability(evaluation)],
        linear_axis([0, 100], suffix=" %"),
        style=style,
        x_label="confidence",
        description=f"accuracy by confidence {title}; expected calibration error {error}",
    )
    return captioned(f"Accuracy {title} (error {error})", chart)


def _point(part: ReliabilityBin) -> UncertainPoint:
    low, high = wilson_interval(part.accuracy, part.count)
    text = (
        f"{counted(part.count, 'image', 'images')}: confidence {percent(part.confidence)}, "
        f"accuracy {percent(part.accuracy)}"
    )
    return UncertainPoint(100 * part.confidence, 100 * part.accuracy, 100 * low, 100 * high, text)


def _table(title: str, evaluation: Evaluation) -> Markup:
    rows = (
        (
            f"{percent(part.lower, decimals=1)} to {percent(part.upper, decimals=1)}",
            f"{part.count:,}",
            percent(part.confidence),
            percent(part.accuracy),
        )
        for part in reliability(evaluation)
    )
    return table(title.capitalize(), ("range", "images", "mean confidence", "accuracy"), rows)
