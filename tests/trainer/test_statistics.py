import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.trainer.statistics import (
    mcnemar_p_value,
    paired_difference_interval,
    wilson_interval,
)


def test_an_interval_worked_by_hand() -> None:
    # p = 1/2, n = 4, z = 1.96: z^2 / n = 0.9604, so the ends are
    #   (1/2 + 0.4802 -+ 1.96 sqrt(1/16 + 0.9604 / 16)) / 1.9604 = (0.9802 -+ 0.6861) / 1.9604
    low, high = wilson_interval(0.5, 4)
    assert low == pytest.approx(0.1500, abs=1e-4)
    assert high == pytest.approx(0.8500, abs=1e-4)


@given(right=st.integers(0, 1000), wrong=st.integers(0, 1000))
def test_the_ends_of_an_interval_are_just_1_96_deviations_away(right: int, wrong: int) -> None:
    count = max(right + wrong, 1)
    share = right / count
    low, high = wilson_interval(share, count)
    assert 0 <= low < high <= 1
    assert low - 1e-12 < share < high + 1e-12
    for end in (low, high):
        deviation = math.sqrt(end * (1 - end) / count)
        assert abs(share - end) == pytest.approx(1.96 * deviation, abs=1e-7)


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [
        # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I,
        # method 3: the four examples to four decimals.
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0 / 20, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_newcombes_table(
    share: float, count: int, low: float, high: float
) -> None:
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("counts", "p_value"),
    [
        ((0, 0), 1.0),
        ((7, 7), 1.0),
        ((0, 5), 2 / 2**5),
        ((1, 9), 2 * (1 + 10) / 2**10),
        ((2, 8), 2 * (1 + 10 + 45) / 2**10),  # 0.109, as tables of the sign test have it
        ((4, 12), 2 * (1 + 16 + 120 + 560 + 1820) / 2**16),
    ],
)
def test_p_values_worked_by_hand(counts: tuple[int, int], p_value: float) -> None:
    assert mcnemar_p_value(*counts) == pytest.approx(p_value, rel=1e-12)
    assert mcnemar_p_value(*counts[::-1]) == pytest.approx(p_value, rel=1e-12)


@given(first=st.integers(0, 600), second=st.integers(0, 600))
def test_p_value_is_that_of_whole_numbers(first: int, second: int) -> None:
    count = first + second
    tail = sum(math.comb(count, index) for index in range(min(first, second) + 1))
    exact = min(Fraction(1), Fraction(2 * tail, 2**count))
    assert mcnemar_p_value(first, second) == pytest.approx(float(exact), rel=1e-9)


def test_p_value_of_many_images_is_that_of_the_normal_distribution() -> None:
    # With continuity correction, (|b - c| - 1)^2 / (b + c) has one degree of freedom.
    first, second = 500_000, 502_500
    deviations = (second - first - 1) / math.sqrt(first + second)
    assert mcnemar_p_value(first, second) == pytest.approx(
        math.erfc(deviations / math.sqrt(2)), rel=1e-4
    )
    assert mcnemar_p_value(0, 10**6) == 0


def test_interval_of_a_difference_is_near_walds_where_there_are_many() -> None:
    # Agresti, Categorical Data Analysis, on the approval of a prime minister: 150 of 1600 people
    # changed one way and 86 the other; difference -0.04, standard error 0.0095.
    low, high = paired_difference_interval(150, 86, 1600)
    assert (low, high) == pytest.approx((-0.04 - 1.96 * 0.0095, -0.04 + 1.96 * 0.0095), abs=2e-4)


def test_interval_of_a_difference_worked_by_hand() -> None:
    # b = 1, c = 4, n = 8: of 10, 1.5 and 4.5, so d = 0.3, and 0.6 - 0.09 is the variance of one.
    half = 1.96 * math.sqrt(0.51 / 10)
    assert paired_difference_interval(1, 4, 8) == pytest.approx((0.3 - half, 0.3 + half))


@given(first=st.integers(0, 50), second=st.integers(0, 50), others=st.integers(0, 100))
def test_interval_of_a_difference_holds_it_and_turns_with_it(
    first: int, second: int, others: int
) -> None:
    count = first + second + others + 1
    low, high = paired_difference_interval(first, second, count)
    assert -1 <= low < high <= 1
    assert low <= (second - first) / (count + 2) <= high
    turned = paired_difference_interval(second, first, count)
    assert turned == pytest.approx((-high, -low))
