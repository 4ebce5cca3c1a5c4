from math import exp, tanh

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.errors import NetworkError
from mlpserve.model.network import Layer, Network


def layer(fan_in: int, fan_out: int, activation: str, *, bias: int | None = None) -> Layer:
    return Layer(
        np.zeros((fan_in, fan_out)), np.zeros(fan_out if bias is None else bias), activation
    )


def images(count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(11).random((count, 6), dtype=np.float32)


def test_forward_pass_equals_the_one_worked_by_hand() -> None:
    first_layer = Layer(np.array([[1.0, -1.0], [2.0, 0.5]]), np.array([0.5, 0.25]), "relu")
    last_layer = Layer(np.array([[1.0, 0.0], [3.0, 4.0]]), np.array([-1.0, 2.0]), "softmax")
    inputs = np.array([[1.0, 0.5], [0.0, 1.0]])

    # Image 1: sums   1 * 1 + 0.5 * 2 + 0.5  = 2.5    1 * -1 + 0.5 * 0.5 + 0.25 = -0.5
    #          relu   2.5                             0
    # Image 2: sums   0 * 1 + 1 * 2 + 0.5    = 2.5    0 * -1 + 1 * 0.5 + 0.25   =  0.75
    #          relu   2.5                             0.75
    hidden = [[2.5, 0.0], [2.5, 0.75]]
    # Image 1: sums   2.5 * 1 + 0 * 3 - 1    = 1.5    2.5 * 0 + 0 * 4 + 2       = 2
    #          softmax of the first: e^1.5 / (e^1.5 + e^2) = 1 / (1 + e^0.5)
    # Image 2: sums   2.5 * 1 + 0.75 * 3 - 1 = 3.75   2.5 * 0 + 0.75 * 4 + 2    = 5
    #          softmax of the first: e^3.75 / (e^3.75 + e^5) = 1 / (1 + e^1.25)
    first, second = 1 / (1 + exp(0.5)), 1 / (1 + exp(1.25))

    np.testing.assert_array_equal(first_layer.forward(inputs), hidden)
    probabilities = Network((first_layer, last_layer)).probabilities(inputs)
    expected = [[first, 1 - first], [second, 1 - second]]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("tanh", tanh(-1.5)), ("relu", 0.0), ("sigmoid", 1 / (1 + exp(1.5)))],
)
def test_each_layer_has_its_own_activation(activation: str, expected: float) -> None:
    hidden = Layer(np.array([[-2.0]]), np.array([0.5]), activation)
    last = Layer(np.array([[1.0, 0.0]]), np.zeros(2), "softmax")
    # The logits are the hidden output and 0, so the odds of the first class are its exponential.
    ((first, second),) = Network((hidden, last)).probabilities(np.array([[1.0]]))
    assert first / second == pytest.approx(exp(expected), rel=1e-12)


def test_each_row_of_a_batch_equals_the_image_alone(network: Network) -> None:
    inputs = images(17)
    alone = np.concatenate([network.probabilities(inputs[i : i + 1]) for i in range(17)])
    np.testing.assert_allclose(network.probabilities(inputs), alone, rtol=1e-5)
    assert len(np.unique(alone, axis=0)) == 17


def test_probabilities_keep_the_dtype_of_the_parameters(network: Network) -> None:
    inputs = images(2)
    assert network.probabilities(inputs).dtype == np.float32
    wide = network.astype(np.float64)
    assert wide.probabilities(inputs.astype(np.float64)).dtype == np.float64


def test_no_images_give_no_probabilities(network: Network) -> None:
    assert network.probabilities(images(0)).shape == (0, 3)


def test_inputs_are_left_as_they_were(network: Network) -> None:
    inputs = images(2)
    network.probabilities(inputs)
    np.testing.assert_array_equal(inputs, images(2))


def test_network_says_how_it_is_built(network: Network) -> None:
    assert network.layer_sizes == (6, 4, 3)
    assert network.activations == ("tanh", "softmax")
    assert [array.shape for array in network.parameters] == [(6, 4), (4,), (4, 3), (3,)]


def test_network_with_other_parameters_has_those_and_the_same_activations(
    network: Network,
) -> None:
    others = [array + 1 for array in network.parameters]
    changed = network.with_parameters(others)
    assert all(mine is given for mine, given in zip(changed.parameters, others, strict=True))
    assert changed.activations == network.activations


def test_one_layer_is_a_network() -> None:
    assert Network((layer(3, 2, "softmax"),)).layer_sizes == (3, 2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "layers: expected at least 1, got 0"),
        (
            (layer(3, 4, "relu"), layer(5, 2, "softmax")),
            "W2: expected 4 rows, the width of layer 1, got 5",
        ),
        (
            (layer(3, 4, "relu", bias=3), layer(4, 2, "softmax")),
            r"b1: expected shape (4,), one a column of W1, got (3,)",
        ),
        (
            (layer(3, 4, "relu"), Layer(np.zeros((4, 2)), np.zeros((1, 2)), "softmax")),
            "b2: expected shape (2,), one a column of W2, got (1, 2)",
        ),
        (
            (Layer(np.zeros(3), np.zeros(3), "softmax"),),
            "W1: expected (fan_in, fan_out), each at least 1, got (3,)",
        ),
        ((layer(0, 2, "softmax"),), "W1: expected (fan_in, fan_out), each at least 1, got (0, 2)"),
        ((layer(3, 0, "softmax"),), "W1: expected (fan_in, fan_out), each at least 1, got (3, 0)"),
        ((layer(3, 2, "relu"),), "activation of layer 1: expected softmax, got 'relu'"),
        (
            (layer(3, 4, "softmax"), layer(4, 2, "softmax")),
            "activation of layer 1: expected tanh or relu or sigmoid, got 'softmax'",
        ),
        (
            (layer(3, 4, "gelu"), layer(4, 2, "softmax")),
            "activation of layer 1: expected tanh or relu or sigmoid, got 'gelu'",
        ),
    ],
    ids=[
        "no layer",
        "neighbours do not fit",
        "bias too short",
        "bias a matrix",
        "weights no matrix",
        "no inputs",
        "no outputs",
        "no softmax at the end",
        "softmax inside",
        "unknown activation",
    ],
)
def test_what_is_no_network_is_refused(layers: tuple[Layer, ...], message: str) -> None:
    with pytest.raises(NetworkError) as refused:
        Network(layers)
    assert str(refused.value) == message
