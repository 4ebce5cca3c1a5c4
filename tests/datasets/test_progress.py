import io
import re
import time

import pytest
from rich.console import Console

from mlpserve.datasets import progress as module
from mlpserve.datasets.progress import Bars, progress, shown_by, unshown


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose only item is what time it is."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def terminal(clock: list[float]) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, get_time=lambda: clock[0])


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_takes_over_a_second_has_a_bar_and_nothing_is_left_of_it(clock: list[float]) -> None:
    console = terminal(clock)
    with shown_by(Bars(console).show), progress("reading [b]x[/b].csv") as note:
        note(10, 1000)
        assert written(console) == ""
        for done in range(20, 1000, 10):
            clock[0] += 0.1
            note(done, 1000)
    text = written(console)
    assert re.search(r"reading \[b\]x\[/b\]\.csv .*━", text)
    assert "left" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.endswith("\x1b[2K")


def test_what_takes_less_has_none(clock: list[float]) -> None:
    console = terminal(clock)
    with shown_by(Bars(console).show), progress("reading") as note:
        for done in range(100):
            clock[0] += 0.009
            note(done, 100)
    assert written(console) == ""


def test_the_speed_is_in_images_or_megabytes_a_second(clock: list[float]) -> None:
    for unit, expected in [("images", "2,000,000 images/s"), ("bytes", "/20.0 MB, 2.0 MB/s")]:
        console = terminal(clock)
        bars = Bars(console)
        with shown_by(bars.show), progress("reading", unit) as note:
            for done in range(10):
                clock[0] += 1
                note(2_000_000 * done, 20_000_000)
        assert expected in written(console)


def test_work_within_work_has_a_bar_below_and_a_failure_leaves_the_terminal_in_order(
    clock: list[float],
) -> None:
    console = terminal(clock)

    def work() -> None:
        with progress("outer") as outer:
            clock[0] += 2
            outer(1, 2)
            with progress("inner") as inner:
                clock[0] += 2
                inner(1, 2)
                raise ValueError("inner")

    with shown_by(Bars(console).show), pytest.raises(ValueError, match="inner"):
        work()
    text = written(console)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_nothing_is_shown_where_standard_error_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DELAY_S", 0)
    for show in (None, unshown):
        with shown_by(show) if show else progress("other"), progress("reading") as note:
            note(1, 2)
    assert capsys.readouterr() == ("", "")
