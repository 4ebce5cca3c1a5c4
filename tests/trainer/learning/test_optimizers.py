import math

import numpy as np
import pytest

from mlpserve.model.activations import FloatArray
from mlpserve.trainer.learning.optimizers import OPTIMIZERS, Adam, GradientDescent


def test_gradient_descent_steps_against_the_gradient() -> None:
    weights = np.array([[1.0, 2.0]])
    GradientDescent([weights]).step([np.array([[10.0, -4.0]])], learning_rate=0.1)
    np.testing.assert_allclose(weights, [[0.0, 2.4]])


def test_two_adam_steps_worked_by_hand() -> None:
    # Step 1, g = 2:  m = 0.2,            v = 0.004;             m / (1 - 0.9)   = 2,
    #                 v / (1 - 0.999) = 4;  p = 1 - 0.1 * 2 / sqrt(4) = 0.9
    # Step 2, g = -1: m = 0.18 - 0.1 = 0.08, v = 0.003996 + 0.001 = 0.004996;
    #                 m / (1 - 0.81) = 0.421053, v / (1 - 0.998001) = 2.499250
    weights = np.array([1.0])
    adam = Adam([weights])
    adam.step([np.array([2.0])], learning_rate=0.1)
    np.testing.assert_allclose(weights, [0.9], rtol=1e-7)
    adam.step([np.array([-1.0])], learning_rate=0.1)
    expected = 0.9 - 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / 0.001999)
    np.testing.assert_allclose(weights, [expected], rtol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_changes_the_arrays_it_was_given_and_keeps_their_dtype(name: str) -> None:
    parameters: list[FloatArray] = [np.ones((2, 3), np.float32), np.ones(3, np.float32)]
    optimizer = OPTIMIZERS[name](parameters)
    optimizer.step([np.full_like(array, 0.5) for array in parameters], learning_rate=0.01)
    for array in parameters:
        assert array.dtype == np.float32
        assert (array < 1).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_finds_the_bottom_of_a_bowl(name: str) -> None:
    position: FloatArray = np.array([3.0, -2.0])
    optimizer = OPTIMIZERS[name]([position])
    for _ in range(400):
        optimizer.step([2 * position], learning_rate=0.05)  # d x^2 / dx
    np.testing.assert_allclose(position, [0, 0], atol=1e-3)
