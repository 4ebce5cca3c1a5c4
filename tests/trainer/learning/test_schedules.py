from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.trainer.learning.schedules import SCHEDULES, constant, tutorial


@pytest.mark.parametrize(("step", "rate"), [(0, 0.5), (75, 0.5), (76, 0.1), (149, 0.1)])
def test_the_tutorials_learning_rate_is_a_half_and_then_a_tenth(step: int, rate: float) -> None:
    assert 0.5 * tutorial(step, 150) == rate


@given(steps=st.integers(1, 10**12), data=st.data())
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_factor_is_above_0_and_at_most_1(name: str, steps: int, data: st.DataObject) -> None:
    for step in (0, data.draw(st.integers(0, steps - 1)), steps - 1):
        assert 0 < SCHEDULES[name](step, steps) <= 1


@given(steps=st.integers(1, 10**6), data=st.data())
def test_constant_is_1_at_every_step(steps: int, data: st.DataObject) -> None:
    assert constant(data.draw(st.integers(0, steps - 1)), steps) == 1


@given(steps=st.integers(1, 3000))
@pytest.mark.parametrize(("name", "warm_up_share"), [("one-cycle", 0.3), ("cosine", 0.05)])
def test_a_schedule_rises_for_its_share_of_the_steps_and_then_falls(
    name: str, warm_up_share: float, steps: int
) -> None:
    shares = [SCHEDULES[name](step, steps) for step in range(steps)]
    assert shares[0] == pytest.approx(0.04)
    rising = [share for step, share in enumerate(shares) if step < warm_up_share * steps]
    falling = shares[len(rising) :]
    assert all(before < after for before, after in pairwise(rising))
    assert all(before > after for before, after in pairwise(falling))


@pytest.mark.parametrize(("name", "peak"), [("one-cycle", 300), ("cosine", 50)])
def test_a_schedule_reaches_1_at_its_peak_and_ends_almost_at_0(name: str, peak: int) -> None:
    shares = [SCHEDULES[name](step, 1000) for step in range(1000)]
    assert shares[peak] == 1
    assert shares[-1] < 1e-4
    # Half way up or down, half a period of a cosine is at the middle.
    assert shares[peak // 2] == pytest.approx(0.52)
    assert shares[(1000 + peak) // 2] == pytest.approx(0.5)
