import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.trainer.statistics import wilson_interval


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
