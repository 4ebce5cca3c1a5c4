import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.trainer.learning.optimizers import OPTIMIZERS, Adam, GradientDescent, Momentum, Step

BLOCK = 65_536  # how much of a vector is worked on at a time


def all_of(vector: npt.NDArray[Any]) -> slice:
    return slice(0, len(vector))


def test_gradient_descent_steps_against_the_gradient() -> None:
    weights = np.array([1.0, 2.0])
    GradientDescent(weights).update(slice(0, 2), np.array([10.0, -4.0]), Step(1, 0.1))
    np.testing.assert_allclose(weights, [0.0, 2.4])


def test_two_momentum_steps_worked_by_hand() -> None:
    # Step 1, g = 2:  m = 2;                    p = 1 - 0.1 (2 + 0.9 * 2)      = 0.62
    # Step 2, g = -1: m = 0.9 * 2 - 1 = 0.8;    p = 0.62 - 0.1 (-1 + 0.9 * 0.8) = 0.648
    weights = np.array([1.0])
    momentum = Momentum(weights)
    momentum.update(slice(0, 1), np.array([2.0]), Step(1, 0.1))
    np.testing.assert_allclose(weights, [0.62])
    momentum.update(slice(0, 1), np.array([-1.0]), Step(2, 0.1))
    np.testing.assert_allclose(weights, [0.648])


def test_two_adam_steps_worked_by_hand() -> None:
    # Step 1, g = 2:  m = 0.2,            v = 0.004;             m / (1 - 0.9)   = 2,
    #                 v / (1 - 0.999) = 4;  p = 1 - 0.1 * 2 / sqrt(4) = 0.9
    # Step 2, g = -1: m = 0.18 - 0.1 = 0.08, v = 0.003996 + 0.001 = 0.004996;
    #                 m / (1 - 0.81) = 0.421053, v / (1 - 0.998001) = 2.499250
    weights = np.array([1.0])
    adam = Adam(weights)
    adam.update(slice(0, 1), np.array([2.0]), Step(1, 0.1))
    np.testing.assert_allclose(weights, [0.9], rtol=1e-7)
    adam.update(slice(0, 1), np.array([-1.0]), Step(2, 0.1))
    expected = 0.9 - 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / 0.001999)
    np.testing.assert_allclose(weights, [expected], rtol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)], ids=["float64", "float32"]
)
def test_adam_is_algorithm_1_of_its_paper_within_rounding(
    dtype: type[np.floating], tolerance: float
) -> None:
    rng = np.random.default_rng(1)
    adam = Adam(weights := np.zeros(1000, dtype))
    expected, mean, square = np.zeros(1000), np.zeros(1000), np.zeros(1000)
    for number in range(1, 51):
        rate = rng.uniform(1e-4, 1e-2)
        # Of all sizes, so that epsilon counts for some: down to a thousandth of it.
        gradient = (10.0 ** rng.uniform(-11, 3, 1000) * rng.choice([-1, 1], 1000)).astype(dtype)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient.astype(np.float64) ** 2
        root = np.sqrt(square / (1 - 0.999**number))
        expected -= rate * mean / (1 - 0.9**number) / (root + 1e-8)
        adam.update(slice(0, 1000), gradient, Step(number, rate))
    np.testing.assert_allclose(weights, expected, rtol=0, atol=tolerance)


def test_decay_shrinks_parameters_before_the_step_and_apart_from_it() -> None:
    # p (1 - rate * decay) = 2 (1 - 0.1 * 0.5) = 1.9, and then the step of the optimizer as ever.
    for optimizer in OPTIMIZERS.values():
        plain, decayed = np.array([1.9]), np.array([2.0])
        optimizer(plain).update(slice(0, 1), np.array([3.0]), Step(1, 0.1))
        optimizer(decayed).update(slice(0, 1), np.array([3.0]), Step(1, 0.1, weight_decay=0.5))
        np.testing.assert_allclose(decayed, plain)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_changes_the_vector_it_was_given_and_keeps_the_dtype(
    name: str, dtype: type[np.floating]
) -> None:
    parameters = np.ones(9, dtype)
    optimizer = OPTIMIZERS[name](parameters)
    gradient = np.full(9, 0.5, dtype)
    optimizer.update(slice(0, 9), gradient, Step(1, 0.01, weight_decay=0.1))
    assert parameters.dtype == dtype
    assert (parameters < 0.9991).all()
    assert (gradient == 0.5).all()
    assert all(array.dtype == dtype for array in optimizer.state.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_the_part_that_was_asked_for_is_changed(name: str) -> None:
    parameters = np.ones(9)
    optimizer = OPTIMIZERS[name](parameters)
    optimizer.update(slice(3, 6), np.ones(9), Step(1, 0.01, weight_decay=0.1))
    for array in (parameters - 1, *optimizer.state.values()):
        np.testing.assert_array_equal(array != 0, [0, 0, 0, 1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_finds_the_bottom_of_a_bowl(name: str) -> None:
    position = np.array([3.0, -2.0])
    optimizer = OPTIMIZERS[name](position)
    for number in range(1, 401):
        optimizer.update(slice(0, 2), 2 * position, Step(number, 0.05))  # d x^2 / dx
    np.testing.assert_allclose(position, [0, 0], atol=1e-3)


@given(cuts=st.lists(st.integers(0, 2 * BLOCK + 77), max_size=4), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updating_in_parts_gives_the_bits_of_updating_at_once(
    name: str, cuts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    count = 2 * BLOCK + 77
    whole = rng.normal(size=count).astype(np.float32)
    parts = whole.copy()
    optimizers = OPTIMIZERS[name](whole), OPTIMIZERS[name](parts)
    ends = [0, *sorted(cuts), count]
    for number in (1, 2):
        gradient = rng.normal(size=count).astype(np.float32)
        step = Step(number, 0.01, weight_decay=0.1)
        optimizers[0].update(all_of(whole), gradient, step)
        for start, stop in pairwise(ends):
            optimizers[1].update(slice(start, stop), gradient, step)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_value_of_a_long_vector_is_changed_as_if_it_were_alone(name: str) -> None:
    rng = np.random.default_rng(1)
    parameters, gradient = rng.normal(size=(2, 2 * BLOCK + 77))
    places = [0, BLOCK - 1, BLOCK, 2 * BLOCK, 2 * BLOCK + 76]
    alone = parameters[places]
    OPTIMIZERS[name](parameters).update(all_of(parameters), gradient, Step(1, 0.01))
    OPTIMIZERS[name](alone).update(all_of(alone), gradient[places], Step(1, 0.01))
    np.testing.assert_allclose(parameters[places], alone, rtol=1e-12)
