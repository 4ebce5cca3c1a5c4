import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.trainer.report.axes import Axis, count_axis, linear_axis, logarithmic_axis

values = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5)
positive_values = st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=5)


def texts(axis: Axis) -> list[str]:
    return [axis.tick_text(tick) for tick in axis.ticks]


def check(axis: Axis, shown: list[float]) -> None:
    """Check that all values are on an axis, and that its ticks are, rising and told apart."""
    for value in (*shown, *axis.ticks):
        assert -1e-9 <= axis.share(value) <= 1 + 1e-9
    assert list(axis.ticks) == sorted(set(axis.ticks))
    assert len(set(texts(axis))) == len(axis.ticks)
    assert 1 <= len(axis.ticks) <= 9


@given(shown=values)
def test_a_linear_axis_shows_all_values(shown: list[float]) -> None:
    check(linear_axis(shown), shown)


@given(shown=positive_values)
def test_a_logarithmic_axis_shows_all_values(shown: list[float]) -> None:
    check(logarithmic_axis(shown), shown)


@given(count=st.integers(1, 10**6))
def test_an_axis_of_counts_shows_the_first_and_the_last(count: int) -> None:
    check(count_axis(count), [1.0, float(count)])


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (
            linear_axis([0.0, 0.0093], lowest=0),
            ["0.000", "0.002", "0.004", "0.006", "0.008", "0.010"],
        ),
        (linear_axis([86.1, 99.9], suffix=" %", highest=100), ["85 %", "90 %", "95 %", "100 %"]),
        (linear_axis([-3, 4]), ["-4", "-2", "0", "2", "4"]),
        (linear_axis([100, 100], highest=100), ["99.98", "100.00"]),
        (linear_axis([0, 0], lowest=0), ["0.0", "0.2"]),
        (linear_axis([0, 1e-12], lowest=0), ["0", "2e-13", "4e-13", "6e-13", "8e-13", "1e-12"]),
        (logarithmic_axis([np.nextafter(1e-6, 0), 2e-6]), ["5e-07", "1e-06", "2e-06"]),
        (logarithmic_axis([5, 5]), ["5", "10"]),
        (logarithmic_axis([0.03, 0.4]), ["0.02", "0.05", "0.1", "0.2", "0.5"]),
        (logarithmic_axis([1e-6, 1]), ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]),
        (count_axis(1), ["1"]),
        (count_axis(3), ["1", "2", "3"]),
        (count_axis(150), ["1", "50", "100", "150"]),
        (count_axis(20_000), ["1", "5,000", "10,000", "15,000", "20,000"]),
    ],
)
def test_ticks_are_round_numbers(axis: Axis, expected: list[str]) -> None:
    assert texts(axis) == expected


def test_equal_factors_are_equal_distances_on_a_logarithmic_axis() -> None:
    axis = logarithmic_axis([0.1, 10])
    assert axis.share(1) == pytest.approx(0.5)
    assert math.isclose(axis.share(0.2) - axis.share(0.1), axis.share(2) - axis.share(1))


@pytest.mark.parametrize("value", [-1e-8, 0.0, 5.0])
def test_an_axis_of_one_value_at_or_beyond_its_end_has_room_for_it(value: float) -> None:
    axis = linear_axis([value, value], lowest=0.0, highest=5.0)
    assert axis.low < axis.high
    assert -1e-6 <= axis.share(value) <= 1
