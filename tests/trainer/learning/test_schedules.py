import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.trainer.learning.schedules import SCHEDULES, one_cycle, tutorial


@pytest.mark.parametrize(("step", "rate"), [(0, 0.5), (75, 0.5), (76, 0.1), (149, 0.1)])
def test_the_tutorials_learning_rate_is_a_half_and_then_a_tenth(step: int, rate: float) -> None:
    assert 0.5 * tutorial(step, 150) == rate


@given(steps=st.integers(1, 5000), data=st.data())
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_share_is_above_0_and_at_most_1(name: str, steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < SCHEDULES[name](step, steps) <= 1


def test_one_cycle_rises_to_the_peak_and_falls_almost_to_0() -> None:
    shares = [one_cycle(step, 1000) for step in range(1000)]
    assert shares[0] == pytest.approx(0.04)
    assert shares[300] == 1
    assert shares[:301] == sorted(shares[:301])
    assert shares[300:] == sorted(shares[300:], reverse=True)
    assert shares[-1] < 1e-4
