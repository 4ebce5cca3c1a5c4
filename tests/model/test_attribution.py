"""Attribution: what each value of an image adds to the logit of a class."""

from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.activations import ACTIVATIONS
from mlpserve.model.attribution import (
    gradient_times_input,
    gradients,
    integrated_gradients,
    logits,
)
from mlpserve.model.network import Layer, Network

Floats = npt.NDArray[np.float64]
IMAGES: Final = 7
CLASSES: Final = np.array([0, 2, 1, 1, 0, 2, 2])


def network_of(activation: str, widths: tuple[int, ...] = (12, 9, 6, 3)) -> Network:
    rng = np.random.default_rng(5)
    layers = [
        Layer(rng.normal(size=(fan_in, fan_out)), rng.normal(size=fan_out), activation)
        for fan_in, fan_out in pairwise(widths)
    ]
    *hidden, last = layers
    return Network((*hidden, Layer(last.weights, last.bias, "softmax")))


def inputs_of(network: Network) -> Floats:
    return np.random.default_rng(6).random((IMAGES, network.layer_sizes[0]))


NETWORKS: Final = [network_of(activation) for activation in ACTIVATIONS] + [
    network_of("tanh", (5, 3))  # softmax regression: no hidden layer
]


@pytest.mark.parametrize("network", NETWORKS)
def test_softmax_of_the_logits_is_the_probabilities(network: Network) -> None:
    inputs = inputs_of(network)
    exponentials = np.exp(logits(network, inputs))
    np.testing.assert_allclose(
        exponentials / exponentials.sum(axis=1, keepdims=True), network.probabilities(inputs)
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_of_finite_differences(network: Network) -> None:
    inputs, step = inputs_of(network), 1e-6
    found = gradients(network, inputs, CLASSES)
    rows = np.arange(IMAGES)
    for value in range(inputs.shape[1]):
        nudge = np.zeros(inputs.shape[1])
        nudge[value] = step
        above = logits(network, inputs + nudge)[rows, CLASSES]
        below = logits(network, inputs - nudge)[rows, CLASSES]
        np.testing.assert_allclose(
            found[:, value], (above - below) / (2 * step), rtol=1e-6, atol=1e-8
        )
    np.testing.assert_array_equal(gradient_times_input(network, inputs, CLASSES), found * inputs)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("baseline", [0.0, 0.25])
def test_integrated_gradients_sum_to_what_the_image_changed_in_the_logit(
    network: Network, baseline: float
) -> None:
    inputs, rows = inputs_of(network), np.arange(IMAGES)
    found = integrated_gradients(network, inputs, CLASSES, steps=2000, baseline=baseline)
    changed = logits(network, inputs) - logits(network, np.full_like(inputs, baseline))
    # A step that a unit of relu begins or ends in is off by up to a gradient, times 1 / steps.
    np.testing.assert_allclose(found.sum(axis=1), changed[rows, CLASSES], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("network", NETWORKS)
def test_integrated_gradients_are_the_mean_of_gradients_along_the_line(network: Network) -> None:
    inputs, steps, baseline = inputs_of(network), 20, 0.25
    expected = np.zeros_like(inputs)
    for step in range(steps):
        share = (step + 0.5) / steps
        expected += gradients(network, baseline + share * (inputs - baseline), CLASSES)
    expected *= (inputs - baseline) / steps
    found = integrated_gradients(network, inputs, CLASSES, steps=steps, baseline=baseline)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_an_image_is_explained_alike_whatever_the_batch() -> None:
    network = network_of("relu")
    inputs = np.random.default_rng(7).random((2500, 12))
    classes = np.random.default_rng(8).integers(0, 3, 2500)
    for explain in (gradients, gradient_times_input, integrated_gradients):
        whole = explain(network, inputs, classes)
        np.testing.assert_allclose(
            whole[1100:1101], explain(network, inputs[1100:1101], classes[1100:1101]), rtol=1e-9
        )


def test_no_argument_is_written_to() -> None:
    network, classes = network_of("sigmoid"), CLASSES.copy()
    inputs = inputs_of(network)
    before = [inputs.copy(), *(array.copy() for array in network.parameters)]
    for explain in (gradients, gradient_times_input, integrated_gradients):
        explain(network, inputs, classes)
    for array, kept in zip([inputs, *network.parameters], before, strict=True):
        np.testing.assert_array_equal(array, kept)
    np.testing.assert_array_equal(classes, CLASSES)
