"""Learning curves: loss, accuracy and learning rate, epoch by epoch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.report.axes import Axis, count_axis, linear_axis, logarithmic_axis
from mlpserve.trainer.report.charts import Chart, Line
from mlpserve.trainer.report.formats import Table, duration, figure, percent

_MAX_POINTS: Final = 300  # of a line: about one a pixel
_MAX_ROWS: Final = 100
_LOGARITHMIC_FROM: Final = 5.0  # times between the lowest and the highest loss
_NO_LOSS: Final = 1e-9  # and less: rounding, which a logarithmic axis would make much of

Value: TypeAlias = Callable[[EpochRecord], float | None]


def curves_section(history: Sequence[EpochRecord]) -> Mapping[str, Any]:
    """Return the learning curves, and all their figures in a table; nothing without a history."""
    if not history:
        return {}
    return {
        "explanation": _explanation(history),
        "has_validation": _has_validation(history),
        "charts": (_loss_chart(history), _accuracy_chart(history), _learning_rate_chart(history)),
        "table": _history_table(history),
    }


def thinned(history: Sequence[EpochRecord], limit: int) -> list[EpochRecord]:
    """Return about ``limit`` records at equal distances, the last one among them."""
    step = -(-len(history) // limit)
    return list(history[::-step])[::-1]


def _explanation(history: Sequence[EpochRecord]) -> str:
    training = (
        "Training images are judged while the network learns from them, so the figures of an epoch "
        "are those of the network about halfway through it."
    )
    if not _has_validation(history):
        return f"{training} There was no validation split."
    return (
        f"{training} The validation split, which it never learns from, is judged after the epoch."
    )


def _has_validation(history: Sequence[EpochRecord]) -> bool:
    return any(record.validation_loss is not None for record in history)


def _loss_chart(history: Sequence[EpochRecord]) -> Chart:
    lines = [
        _line("training", "first", history, lambda record: record.train_loss),
        _line("validation", "second", history, lambda record: record.validation_loss),
    ]
    values = [y for line in lines for _, y in line.points] or [0.0]
    if min(values) > _NO_LOSS and max(values) >= _LOGARITHMIC_FROM * min(values):
        axis, scale = logarithmic_axis(values), ", logarithmic"
    else:
        axis, scale = linear_axis([0.0, *values], lowest=0), ""
    return _chart(f"Loss (cross-entropy in nats{scale})", "loss", lines, axis, history)


def _accuracy_chart(history: Sequence[EpochRecord]) -> Chart:
    lines = [
        _line("training", "first", history, lambda record: 100 * record.train_accuracy),
        _line("validation", "second", history, _validation_percent),
    ]
    values = [y for line in lines for _, y in line.points] or [0.0]
    axis = linear_axis(values, suffix=" %", lowest=0, highest=100)
    return _chart("Accuracy", "accuracy in percent", lines, axis, history)


def _validation_percent(record: EpochRecord) -> float | None:
    return None if record.validation_accuracy is None else 100 * record.validation_accuracy


def _learning_rate_chart(history: Sequence[EpochRecord]) -> Chart:
    line = _line("learning rate", "third", history, lambda record: record.learning_rate)
    axis = linear_axis([0.0, *(y for _, y in line.points)], lowest=0)
    return _chart("Learning rate (at the end of the epoch)", "learning rate", [line], axis, history)


def _line(name: str, style: str, history: Sequence[EpochRecord], value: Value) -> Line:
    """Return a value of each epoch, counted from 1; what is no finite number is left out."""
    values = ((record.epoch + 1, value(record)) for record in thinned(history, _MAX_POINTS))
    points = [(float(x), y) for x, y in values if y is not None and math.isfinite(y)]
    return Line(name, style, points)


def _chart(
    title: str, subject: str, lines: Sequence[Line], axis: Axis, history: Sequence[EpochRecord]
) -> Chart:
    ends = "; ".join(
        f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
        for line in lines
        if line.points
    )
    return Chart(
        title=title,
        description=f"{subject} by epoch: {ends}",
        x_label="epoch",
        x_axis=count_axis(max(record.epoch for record in history) + 1),
        y_axis=axis,
        lines=lines,
    )


def _history_table(history: Sequence[EpochRecord]) -> Table:
    shown = thinned(history, _MAX_ROWS)
    caption = "Every epoch" if len(shown) == len(history) else "Epochs at equal distances"
    heads = (
        "epoch",
        "learning rate",
        "training loss",
        "training accuracy",
        "validation loss",
        "validation accuracy",
        "time so far",
        "images/s",
    )
    return caption, heads, [_history_row(record) for record in shown]


def _history_row(record: EpochRecord) -> tuple[str, ...]:
    return (
        str(record.epoch + 1),
        f"{record.learning_rate:.4g}",
        figure(record.train_loss),
        percent(record.train_accuracy),
        figure(record.validation_loss),
        percent(record.validation_accuracy),
        duration(record.elapsed_s),
        f"{record.images_per_s:,.0f}",
    )
