"""The part of the report that shows the sweep which found a version's settings."""

from dataclasses import replace

import pytest

from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.report.trials import trials_section
from mlpserve.trainer.search_space import Choices, Range
from mlpserve.trainer.trials import Rules, Sweep, Trial, TrialState

PARAMETERS = (
    Range("learning-rate", 0.0001, 0.1, is_logarithmic=True),
    Range("dropout", 0.0, 0.5),
    Choices("layers", ("16", "", "1024,1024,1024")),
)


def record(epoch: int, loss: float, accuracy: float) -> EpochRecord:
    return EpochRecord(epoch, 0.1, 1.0, 0.5, loss, accuracy, 1.0, 1.0)


def sweep_of(count: int, metric: str = "loss") -> Sweep:
    """Return a sweep of which every fourth trial came to its end; the last trial is the best."""
    trials = []
    for number in range(1, count + 1):
        is_over = (count - number) % 4 == 0
        point = (f"{0.1 / number}", f"{0.5 / number}", PARAMETERS[2].options[number % 3])
        values = dict(zip((each.name for each in PARAMETERS), point, strict=True))
        records = tuple(
            record(epoch, 1 / number + 1 / (epoch + 1), 1 - 1 / (number + epoch + 1))
            for epoch in range(9 if is_over else 1)
        )
        state = TrialState.ENDED if is_over else TrialState.STOPPED
        trials.append(Trial(number, values, state, records))
    return Sweep(PARAMETERS, Rules(metric, (1, 3, 9), 3), tuple(trials))


def test_there_is_nothing_without_a_sweep() -> None:
    assert trials_section(None) == {}


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_all_trials_are_drawn_the_best_on_top(metric: str) -> None:
    section = trials_section(sweep_of(10, metric))
    curves, *effects = section["charts"]
    assert [line.style for line in curves.lines].count("first") == 1
    assert curves.lines[-1].style == "first"
    assert len(curves.lines) == 10
    assert [chart.x_label for chart in effects] == ["learning rate", "dropout", "layers"]
    for chart in effects:
        assert len(chart.dots) == 10
        assert chart.dots[-1].style == "first"
        assert all(0 <= chart.x_axis.share(dot.x) <= 1 for dot in chart.dots)
        assert all(0 <= chart.y_axis.share(dot.y) <= 1 for dot in chart.dots)
    names = effects[2].x_axis
    assert [names.tick_text(tick) for tick in names.ticks] == [
        "16",
        "none",
        "1024,102\N{HORIZONTAL ELLIPSIS}",
    ]
    caption, heads, rows = section["table"]
    assert caption == "All trials, the best first"
    assert heads[:4] == ("trial", "learning rate", "dropout", "layers")
    assert (rows[0][0], rows[0][-1]) == ("10", "the best")


def test_of_many_trials_the_best_are_shown_and_the_page_says_so() -> None:
    section = trials_section(sweep_of(1000))
    assert "The best 100 of them are shown." in section["explanation"]
    assert section["table"][0] == "The best 100 of 1000 trials"
    assert all(len(chart.lines or chart.dots) == 100 for chart in section["charts"])


def test_trials_that_failed_are_in_the_table_with_the_reason() -> None:
    sweep = sweep_of(5)
    first = replace(sweep.trials[0], state=TrialState.FAILED, failure="no <memory>", records=())
    section = trials_section(replace(sweep, trials=(first, *sweep.trials[1:])))
    assert section["table"][2][-1][-1] == "failed: no <memory>"
    assert len(section["charts"][0].lines) == 4
