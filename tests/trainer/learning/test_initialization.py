import numpy as np
import pytest

from mlpserve.model.activations import FloatArray
from mlpserve.trainer.learning.initialization import INITIALIZATIONS, he, tutorial


def test_the_tutorials_weights_are_those_of_its_global_seed() -> None:
    network = tutorial((5, 4, 3), "tanh", seed=2)
    np.random.seed(2)
    for layer, (fan_in, fan_out) in zip(network.layers, [(5, 4), (4, 3)], strict=True):
        np.testing.assert_array_equal(layer.weights, (np.random.randn(fan_out, fan_in) * 0.1).T)


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_no_initialization_touches_global_random_state(name: str) -> None:
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    INITIALIZATIONS[name]((5, 4, 3), "relu", 1)
    assert np.random.rand() == expected


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_a_seed_gives_the_same_network_each_time_and_another_seed_another(name: str) -> None:
    first, again, other = (INITIALIZATIONS[name]((5, 4, 3), "relu", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.layers[0].weights, again.layers[0].weights)
    assert not np.array_equal(first.layers[0].weights, other.layers[0].weights)


def test_he_keeps_the_size_of_signals_through_many_layers() -> None:
    network = he((500, 500, 500, 500, 500, 10), "relu", seed=1)
    inputs: FloatArray = np.random.default_rng(1).normal(size=(200, 500))
    for layer in network.layers[:-1]:
        inputs = layer.forward(inputs)
        assert 0.7 < np.square(inputs).mean() < 1.4


def test_biases_begin_at_0() -> None:
    for initialization in INITIALIZATIONS.values():
        assert not any(layer.bias.any() for layer in initialization((5, 4, 3), "tanh", 1).layers)
