"""Gradients, against what is measured by moving each parameter a little in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.activations import ACTIVATIONS, FloatArray, softmax
from mlpserve.model.network import Network
from mlpserve.trainer.learning.backprop import Backpropagation, Labels
from mlpserve.trainer.learning.distillation import Distillation
from mlpserve.trainer.learning.initialization import he
from mlpserve.trainer.learning.optimizers import GradientDescent, Step
from mlpserve.trainer.learning.parameters import Vector, vector_of, views
from passes import batch_of, loss_and_gradients

STEP = 1e-5  # of the central differences: their own error is about its square
HIDDEN_SIZES = [(), (5,), (5, 4), (4, 6, 5)]
CLASSES = 3


def batch(count: int = 11, width: int = 7, classes: int = CLASSES) -> tuple[FloatArray, Labels]:
    rng = np.random.default_rng(1)
    return rng.random((count, width)), rng.integers(0, classes, count)


def network_of_vector(
    hidden_sizes: tuple[int, ...], activation: str, width: int = 7, classes: int = CLASSES
) -> tuple[Network, Vector]:
    """Return a network and the vector that it reads its parameters from.

    Its biases are not 0, so that their gradients count as well. None of its probabilities is so
    small that what the loss adds to it before the logarithm, 1e-8, would be noticed.
    """
    network = he((width, *hidden_sizes, classes), activation, seed=2)
    vector = vector_of(network)
    vector += np.random.default_rng(3).normal(0, 0.3, len(vector))
    vector *= 0.7
    return network.with_parameters(views(vector, network)), vector


def numeric_gradient(loss: Callable[[], float], vector: Vector) -> npt.NDArray[np.float64]:
    """Return (loss(p + h) - loss(p - h)) / 2h for each element p of a vector."""
    gradient = np.zeros(len(vector))
    for index, value in enumerate(vector.tolist()):
        losses = []
        for moved in (value + STEP, value - STEP):
            vector[index] = moved
            losses.append(loss())
        vector[index] = value
        gradient[index] = (losses[0] - losses[1]) / (2 * STEP)
    return gradient


def relative_error(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    difference = np.linalg.norm(actual - expected)
    return float(difference / (np.linalg.norm(actual) + np.linalg.norm(expected)))


def assert_gradients_are_those_of_the_loss(
    network: Network, vector: Vector, **options: float
) -> None:
    """Compare all gradients of a batch; dropout draws the same each time."""
    inputs, labels = batch()

    def run() -> tuple[float, list[FloatArray]]:
        rng = np.random.default_rng(5)
        return loss_and_gradients(network, inputs, labels, rng=rng, **options)

    _, gradients = run()
    expected = views(numeric_gradient(lambda: run()[0], vector), network)
    for gradient, numeric in zip(gradients, expected, strict=True):
        assert relative_error(gradient, numeric) < 1e-7


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", HIDDEN_SIZES, ids=str)
def test_gradients_equal_central_differences(
    activation: str, hidden_sizes: tuple[int, ...]
) -> None:
    assert_gradients_are_those_of_the_loss(*network_of_vector(hidden_sizes, activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", HIDDEN_SIZES, ids=str)
def test_they_do_with_smoothed_labels(activation: str, hidden_sizes: tuple[int, ...]) -> None:
    assert_gradients_are_those_of_the_loss(
        *network_of_vector(hidden_sizes, activation), label_smoothing=0.2
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", HIDDEN_SIZES, ids=str)
def test_they_do_with_outputs_dropped_and_labels_smoothed(
    activation: str, hidden_sizes: tuple[int, ...]
) -> None:
    assert_gradients_are_those_of_the_loss(
        *network_of_vector(hidden_sizes, activation), dropout=0.4, label_smoothing=0.1
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_with_teachers_they_are_of_the_losses_by_labels_and_by_softened_probabilities(
    share: float, temperature: float, label_smoothing: float
) -> None:
    network, vector = network_of_vector((5, 4), "tanh")
    inputs, labels = batch()
    teachers = [he((7, 6, CLASSES), "relu", seed) for seed in (8, 9)]

    def logits(network: Network) -> FloatArray:
        return np.log(network.probabilities(inputs))  # but for a constant of each row

    of_labels = (1 - label_smoothing) * np.eye(CLASSES)[labels] + label_smoothing / CLASSES
    of_teachers = sum(softmax(logits(teacher) / temperature) for teacher in teachers) / 2

    def loss() -> float:
        by_labels = -(of_labels * logits(network)).sum(axis=1).mean()
        softened = np.log(softmax(logits(network) / temperature))
        by_teachers = -(of_teachers * softened).sum(axis=1).mean()
        return float((1 - share) * by_labels + share * temperature**2 * by_teachers)

    backpropagation = Backpropagation(
        network,
        max_rows=len(labels),
        label_smoothing=label_smoothing,
        distillation=Distillation(teachers, share, temperature),
    )
    backpropagation.run(batch_of(inputs, labels), slice(0, len(labels)))
    expected = views(numeric_gradient(loss, vector), network)
    for gradient, numeric in zip(backpropagation.gradients, expected, strict=True):
        assert relative_error(gradient, numeric) < 1e-7


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_weight_decay_is_the_derivative_of_half_the_sum_of_squares(activation: str) -> None:
    network, vector = network_of_vector((5, 4), activation)
    inputs, labels = batch()

    def loss() -> float:
        penalty = 0.3 / 2 * float(np.square(vector).sum())
        return loss_and_gradients(network, inputs, labels)[0] + penalty

    expected = numeric_gradient(loss, vector)
    before = vector.copy()
    _, gradients = loss_and_gradients(network, inputs, labels)
    gradient = np.concatenate([array.ravel() for array in gradients])
    step = Step(1, learning_rate=0.5, weight_decay=0.3)
    GradientDescent(vector).update(slice(0, len(vector)), gradient, step)
    assert relative_error((before - vector) / 0.5, expected) < 1e-7


def test_without_options_the_loss_is_the_mean_cross_entropy() -> None:
    network, _ = network_of_vector((5, 4), "tanh")
    inputs, labels = batch()
    of_truth = network.probabilities(inputs)[np.arange(len(labels)), labels]
    loss, _ = loss_and_gradients(network, inputs, labels)
    assert loss == pytest.approx(-np.log(of_truth).mean(), rel=1e-6)


def test_smoothed_labels_share_a_part_of_the_truth_among_all_classes() -> None:
    network, _ = network_of_vector((5, 4), "tanh")
    inputs, labels = batch()
    targets = 0.7 * np.eye(CLASSES)[labels] + 0.3 / CLASSES
    expected = -(targets * np.log(network.probabilities(inputs))).sum(axis=1).mean()
    loss, _ = loss_and_gradients(network, inputs, labels, label_smoothing=0.3)
    assert loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"dropout": 0.3}], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float32_gradients_follow_those_in_float64(
    activation: str, options: dict[str, float]
) -> None:
    network, _ = network_of_vector((20,), activation, width=30, classes=10)
    inputs, labels = batch(count=64, width=30, classes=10)
    _, exact = loss_and_gradients(network, inputs, labels, rng=np.random.default_rng(5), **options)
    _, rounded = loss_and_gradients(
        network.astype(np.float32),
        inputs.astype(np.float32),
        labels,
        rng=np.random.default_rng(5),
        **options,
    )
    for gradient, expected in zip(rounded, exact, strict=True):
        assert gradient.dtype == np.float32
        assert relative_error(gradient, expected) < 1e-5
