"""Trials of the sweep that found a version's settings: all curves, each setting's effect, a table.

What grows with the sweep is capped: the best trials are shown, and the page says how many.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.report.axes import Axis, count_axis, linear_axis, logarithmic_axis, name_axis
from mlpserve.trainer.report.charts import Chart, Dot, Line
from mlpserve.trainer.report.curves import thinned
from mlpserve.trainer.report.formats import Table, counted, figure, percent
from mlpserve.trainer.search_space import Choices, Parameter
from mlpserve.trainer.trials import Sweep, Trial, TrialState

_MAX_TRIALS: Final = 100
_MAX_OPEN_ROWS: Final = 12  # of a table that is shown without being asked for
_MAX_POINTS: Final = 60  # of a line: there are many lines
_MAX_TICKS: Final = 5  # of a horizontal axis with numbers like 0.0005
_MAX_NAMES: Final = 8  # below an axis
_MAX_NAME_LETTERS: Final = 9
_LOGARITHMIC_FROM: Final = 5.0  # times between the lowest and the highest value
_NO_LOSS: Final = 1e-9  # and less: rounding, which a logarithmic axis would make much of


def trials_section(sweep: Sweep | None) -> Mapping[str, Any]:
    """Return the figures of a sweep; nothing without one."""
    best = None if sweep is None else sweep.best()
    if sweep is None or best is None:
        return {}
    shown = sweep.ranked()[:_MAX_TRIALS]
    return {
        "explanation": _explanation(sweep, best, len(shown)),
        "charts": [
            _curves(sweep, shown, best),
            *(_effect(sweep, shown, best, parameter) for parameter in sweep.parameters),
        ],
        "table": _table(sweep, shown, best),
        "is_open": len(shown) <= _MAX_OPEN_ROWS,
    }


def _explanation(sweep: Sweep, best: Trial, shown: int) -> str:
    total = len(sweep.trials)
    ended = sum(trial.state is TrialState.ENDED for trial in sweep.trials)
    rules = sweep.rules
    text = (
        f"A sweep of {counted(total, 'trial', 'trials')} found them: this version is trial "
        f"{best.number}. "
    )
    if len(rules.rungs) > 1:
        after = ", ".join(map(str, rules.rungs[:-1]))
        text += (
            f"Trials were compared after {after} of {counted(rules.rungs[-1], 'epoch', 'epochs')}, "
            f"and about one in {rules.reduction} went on; {ended} came to their end. "
        )
    text += (
        f"They were judged by the {rules.metric} of the validation images, never by test images."
    )
    if shown < total:
        text += f" The best {shown} of them are shown."
    return text


def _curves(sweep: Sweep, shown: Sequence[Trial], best: Trial) -> Chart:
    value = _value(sweep)
    # The best is the last, and so on top.
    lines = [
        Line(
            str(trial),
            _style(trial, best),
            [
                (float(record.epoch + 1), value(record))
                for record in thinned(trial.records, _MAX_POINTS)
                if math.isfinite(value(record))
            ],
            has_marks=trial is best or len(trial.records) == 1,
        )
        for trial in reversed(shown)
        if trial.records
    ]
    axis, scale = _value_axis(sweep, [y for line in lines for _, y in line.points])
    last = max(len(trial.records) for trial in shown)
    return Chart(
        title=f"Validation {sweep.rules.metric} of all trials{scale}",
        description=f"validation {sweep.rules.metric} by epoch of {len(lines)} trials; that of the "
        f"best, {best}, ends at {lines[-1].points[-1][1]:.4g}",
        x_label="epoch",
        x_axis=count_axis(last),
        y_axis=axis,
        lines=lines,
    )


def _style(trial: Trial, best: Trial) -> str:
    if trial is best:
        return "first"
    return "trial" if trial.state is TrialState.ENDED else "trial hollow"


def _effect(sweep: Sweep, shown: Sequence[Trial], best: Trial, parameter: Parameter) -> Chart:
    """Return how good trials are, by the value of one of the settings that they vary."""
    axis, place = _setting_axis(parameter)
    value, rules = _value(sweep), sweep.rules
    dots = []
    for trial in reversed(shown):
        record = rules.kept(trial)
        if record is None or not math.isfinite(value(record)):
            continue
        dots.append(
            Dot(
                _style(trial, best),
                place(trial.values[parameter.name]),
                value(record),
                f"{trial}, {counted(trial.epochs, 'epoch', 'epochs')}: {value(record):.4g}",
            )
        )
    y_axis, _ = _value_axis(sweep, [dot.y for dot in dots])
    name = parameter.name.replace("-", " ")
    return Chart(
        title=f"Validation {rules.metric} by {name}",
        description=f"validation {rules.metric} of {len(dots)} trials after their last epoch, by "
        f"{name}; the best has {best.values[parameter.name] or 'none'}",
        x_label=name,
        x_axis=axis,
        y_axis=y_axis,
        dots=dots,
    )


def _setting_axis(parameter: Parameter) -> tuple[Axis, Callable[[str], float]]:
    """Return the axis of a setting, and what tells where on it a value is."""
    if not isinstance(parameter, Choices):
        limits = (parameter.low, parameter.high)
        if not parameter.is_logarithmic:
            return linear_axis(limits), float
        axis = logarithmic_axis(limits)
        decades = tuple(tick for tick in axis.ticks if math.log10(tick).is_integer())
        is_crowded = len(axis.ticks) > _MAX_TICKS and decades
        return replace(axis, ticks=decades if is_crowded else axis.ticks), float
    places = {option: float(place) for place, option in enumerate(parameter.options, 1)}
    names = [_short(option) for option in parameter.options]
    axis = name_axis(names if len(names) <= _MAX_NAMES else [str(int(p)) for p in places.values()])
    return axis, places.__getitem__


def _short(option: str) -> str:
    name = option or "none"
    if len(name) <= _MAX_NAME_LETTERS:
        return name
    return f"{name[: _MAX_NAME_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _value(sweep: Sweep) -> Callable[[EpochRecord], float]:
    """Return what gives the value that is drawn of an epoch: a loss in nats, or percent."""

    def value(record: EpochRecord) -> float:
        is_loss = sweep.rules.metric == "loss"
        found = record.validation_loss if is_loss else record.validation_accuracy
        return math.nan if found is None else found if is_loss else 100 * found

    return value


def _value_axis(sweep: Sweep, values: Sequence[float]) -> tuple[Axis, str]:
    values = values or [0.0]
    if sweep.rules.metric != "loss":
        return linear_axis(values, suffix=" %", lowest=0, highest=100), ""
    if min(values) > _NO_LOSS and max(values) >= _LOGARITHMIC_FROM * min(values):
        return logarithmic_axis(values), " (logarithmic)"
    return linear_axis(values, lowest=0), ""


def _table(sweep: Sweep, shown: Sequence[Trial], best: Trial) -> Table:
    names = [parameter.name for parameter in sweep.parameters]
    heads = (
        "trial",
        *(name.replace("-", " ") for name in names),
        "epochs",
        "validation loss",
        "validation accuracy",
        "time",
        "",
    )
    rows = []
    for trial in shown:
        loss, accuracy = sweep.rules.found(trial)
        rows.append(
            (
                str(trial.number),
                *(trial.values[name] or "none" for name in names),
                str(trial.epochs),
                figure(loss),
                percent(accuracy),
                f"{trial.records[-1].elapsed_s:.1f} s" if trial.records else figure(None),
                "the best" if trial is best else _outcome(trial),
            )
        )
    caption = "All trials, the best first"
    if len(shown) < len(sweep.trials):
        caption = f"The best {len(shown)} of {len(sweep.trials)} trials"
    return caption, heads, rows


def _outcome(trial: Trial) -> str:
    if trial.state is TrialState.FAILED:
        return f"failed: {trial.failure}"
    if trial.state is TrialState.ENDED:
        return "trained to the end"
    return "stopped early" if trial.records else "did not begin"
