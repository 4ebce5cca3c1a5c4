import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.activations import HIDDEN_ACTIVATIONS, FloatArray
from mlpserve.model.network import Layer, Network
from mlpserve.trainer.learning.backprop import DERIVATIVES, Labels, loss_and_gradients
from mlpserve.trainer.learning.initialization import he

STEP = 1e-5  # of the central differences: their own error is about its square


def batch(
    count: int, width: int, classes: int, seed: int = 1
) -> tuple[npt.NDArray[np.float64], Labels]:
    rng = np.random.default_rng(seed)
    return rng.random((count, width)), rng.integers(0, classes, count)


def shaken(network: Network, seed: int = 3) -> Network:
    """Return the network with biases that are not 0, so that their gradients count as well."""
    rng = np.random.default_rng(seed)
    return network.with_parameters(
        [array + rng.normal(0, 0.3, array.shape) for array in network.parameters]
    )


def numeric_gradient(
    network: Network, parameter: FloatArray, inputs: FloatArray, labels: Labels
) -> npt.NDArray[np.float64]:
    """Return (loss(p + h) - loss(p - h)) / 2h for each element p of a parameter."""
    gradient = np.zeros_like(parameter, np.float64)
    for index in np.ndindex(parameter.shape):
        value = parameter[index]
        losses = []
        for moved in (value + STEP, value - STEP):
            parameter[index] = moved
            losses.append(loss_and_gradients(network, inputs, labels).loss)
        parameter[index] = value
        gradient[index] = (losses[0] - losses[1]) / (2 * STEP)
    return gradient


def relative_error(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    difference = np.linalg.norm(actual - expected)
    return float(difference / (np.linalg.norm(actual) + np.linalg.norm(expected)))


def test_every_hidden_activation_has_a_derivative() -> None:
    assert set(DERIVATIVES) == set(HIDDEN_ACTIVATIONS)


@pytest.mark.parametrize("activation", HIDDEN_ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4), (4, 6, 5)], ids=str)
def test_gradients_equal_central_differences_in_float64(
    activation: str, hidden: tuple[int, ...]
) -> None:
    network = shaken(he((7, *hidden, 3), activation, seed=2))
    inputs, labels = batch(count=11, width=7, classes=3)
    gradients = loss_and_gradients(network, inputs, labels).gradients
    for parameter, gradient in zip(network.parameters, gradients, strict=True):
        expected = numeric_gradient(network, parameter, inputs, labels)
        assert relative_error(gradient, expected) < 1e-7


@pytest.mark.parametrize("activation", HIDDEN_ACTIVATIONS)
def test_float32_gradients_follow_those_in_float64(activation: str) -> None:
    network = shaken(he((30, 20, 10), activation, seed=4))
    inputs, labels = batch(count=64, width=30, classes=10)
    exact = loss_and_gradients(network, inputs, labels).gradients
    rounded = loss_and_gradients(
        network.astype(np.float32), inputs.astype(np.float32), labels
    ).gradients
    for gradient, expected in zip(rounded, exact, strict=True):
        assert gradient.dtype == np.float32
        assert relative_error(gradient, expected) < 1e-5


def test_a_batch_worked_by_hand() -> None:
    # One layer, two inputs, two classes, all parameters 0: both probabilities are 1/2 whatever the
    # input. Rows (1, 0) of class 0 and (0, 2) of class 1, so
    #   D = (P - Y) / 2 = [[-1/4, 1/4], [1/4, -1/4]]
    #   dW = X.T @ D    = [[-1/4, 1/4], [1/2, -1/2]]
    #   db = sum of D   = [0, 0]
    # The loss is ln 2; of equal probabilities the first is taken, so the first row is right.
    network = Network((Layer(np.zeros((2, 2)), np.zeros(2), "softmax"),))
    result = loss_and_gradients(network, np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0, 1]))
    assert result.loss == pytest.approx(math.log(2), abs=1e-7)
    assert result.correct == 1
    np.testing.assert_allclose(result.gradients[0], [[-0.25, 0.25], [0.5, -0.5]])
    np.testing.assert_allclose(result.gradients[1], [0, 0], atol=1e-15)


@given(count=st.integers(1, 2500))
def test_a_batch_larger_than_a_chunk_gives_the_mean_of_its_rows(count: int) -> None:
    network = shaken(he((3, 4, 2), "tanh", seed=1))
    inputs, labels = batch(count=count, width=3, classes=2)
    result = loss_and_gradients(network, inputs, labels)
    probabilities = network.probabilities(inputs)[np.arange(count), labels]
    assert result.loss == pytest.approx(-np.log(probabilities).mean(), rel=1e-6)
    # Twice the same rows: twice as many of them right, and the same means.
    doubled = loss_and_gradients(network, np.repeat(inputs, 2, axis=0), np.repeat(labels, 2))
    assert doubled.correct == 2 * result.correct
    for gradient, expected in zip(doubled.gradients, result.gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_the_loss_stays_finite_where_the_network_is_surely_wrong() -> None:
    certain = Network((Layer(np.array([[0.0, 5000.0]]), np.zeros(2), "softmax"),))
    result = loss_and_gradients(certain, np.ones((1, 1)), np.array([0]))
    assert result.loss == pytest.approx(-math.log(1e-8))
