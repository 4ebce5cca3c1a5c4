"""The page with the algorithm, and the optimised pass against it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.datasets import Split, load_dataset
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Layer, Network
from mlpserve.trainer.learning import plain
from mlpserve.trainer.learning.backprop import Backpropagation
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.recipes import SEED
from passes import batch_of


def random_layers(sizes: Sequence[int], seed: int) -> list[plain.Layer]:
    """Return layers of which no bias is 0, and whose outputs are not all alike."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(0, 1, (fan_in, fan_out)), rng.normal(0, 0.5, fan_out))
        for fan_in, fan_out in pairwise(sizes)
    ]


def network_of(layers: list[plain.Layer], activation: str) -> Network:
    activations = [activation] * (len(layers) - 1) + ["softmax"]
    return Network(
        tuple(
            Layer(weights, bias, name)
            for (weights, bias), name in zip(layers, activations, strict=True)
        )
    )


@given(
    hidden_sizes=st.lists(st.integers(1, 9), max_size=4),
    width=st.integers(1, 8),
    classes=st.integers(2, 6),
    activation=st.sampled_from(list(plain.ACTIVATIONS)),
    count=st.one_of(st.integers(1, 40), st.sampled_from([999, 1000, 1001, 2000, 2001])),
    max_rows=st.integers(1, 2001),
    shards=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_the_optimised_pass_finds_the_loss_and_the_gradients_of_the_plain_one(  # noqa: PLR0917
    hidden_sizes: list[int],
    width: int,
    classes: int,
    activation: str,
    count: int,
    max_rows: int,
    shards: int,
    seed: int,
) -> None:
    layers = random_layers((width, *hidden_sizes, classes), seed)
    rng = np.random.default_rng(seed)
    images, labels = rng.random((count, width)), rng.integers(0, classes, count)
    outputs = plain.forward(layers, images, activation)
    gradients = plain.backward(layers, outputs, labels, activation)

    # A pass takes as many rows at a time as it has room for, which a cut may leave short.
    backpropagation = Backpropagation(network_of(layers, activation), max_rows=max_rows)
    loss, correct, found = 0.0, 0, np.zeros_like(backpropagation.gradient)
    cuts = np.linspace(0, count, shards + 1, dtype=int).tolist()
    for start, stop in pairwise(cuts):
        result = backpropagation.run(batch_of(images, labels), slice(start, stop))
        loss, correct = loss + result.loss, correct + result.correct
        found += backpropagation.gradient

    assert loss == pytest.approx(plain.loss(outputs[-1], labels), rel=1e-12, abs=1e-14)
    assert correct == np.count_nonzero(outputs[-1].argmax(axis=1) == labels)
    expected = np.concatenate([array.ravel() for layer in gradients for array in layer])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("activation", plain.ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", [(), (5,), (5, 4), (4, 6, 5)], ids=str)
def test_its_gradients_equal_central_differences(
    hidden_sizes: tuple[int, ...], activation: str
) -> None:
    layers = random_layers((7, *hidden_sizes, 3), seed=1)
    rng = np.random.default_rng(2)
    images, labels = rng.random((11, 7)), rng.integers(0, 3, 11)

    def loss() -> float:
        return plain.loss(plain.forward(layers, images, activation)[-1], labels)

    gradients = plain.backward(
        layers, plain.forward(layers, images, activation), labels, activation
    )
    for layer, gradient in zip(layers, gradients, strict=True):
        for parameters, expected in zip(layer, gradient, strict=True):
            np.testing.assert_allclose(slopes(loss, parameters), expected, rtol=1e-4, atol=1e-7)


def slopes(loss: Callable[[], float], parameters: plain.Array) -> plain.Array:
    """Return (loss(p + h) - loss(p - h)) / 2h for each of the parameters."""
    found, step = np.zeros_like(parameters), 1e-5
    for index in np.ndindex(parameters.shape):
        value = parameters[index]
        parameters[index] = value + step
        above = loss()
        parameters[index] = value - step
        found[index] = (above - loss()) / (2 * step)
        parameters[index] = value
    return found


@pytest.mark.parametrize("activation", plain.ACTIVATIONS)
def test_the_recipe_of_the_tutorial_trains_as_the_page_does(activation: str) -> None:
    # Small images, of three classes that differ in which third of them is bright.
    rng = np.random.default_rng(3)
    labels = np.arange(120) % 3
    pixels = rng.integers(0, 100, (120, 4, 6), np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 150
    spec, split = InputSpec((4, 6)), Split(pixels, labels)
    recipe = replace(SEED, hidden_sizes=(7, 5), activation=activation, epochs=90)

    with ThreadPool(1) as pool:
        training = Training(recipe, initial_network(recipe, 24, 3), split, spec, pool=pool)
        while training.position.steps < training.steps:
            training.step()
    layers = plain.train(
        spec.scale(pixels, np.float64),
        labels,
        hidden_sizes=(7, 5),
        activation=activation,
        iterations=90,
    )

    parameters = [array for layer in layers for array in layer]
    for found, expected in zip(training.network.parameters, parameters, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_the_command_prints_each_tenth_iteration_of_any_data(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain.main(["--data", str(data)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"iteration {n:3}" for n in range(0, 150, 10)]
    split = load_dataset(str(data), data_dir=None).train
    layers = plain.initialize((24, 16, 16, 3), seed=2)
    probabilities = plain.forward(layers, split.images.reshape(len(split), -1) / 255)[-1]
    cost = plain.loss(probabilities, split.labels) / 3
    accuracy = 100 * np.mean(probabilities.argmax(axis=1) == split.labels)
    assert lines[0] == f"iteration   0: cost {cost:.6f}, accuracy {accuracy:.6f} %"


def test_data_that_cannot_be_read_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        plain.main(["--data", str(tmp_path / "nothing.npz")])
    assert ended.value.code == 2
    assert "nothing.npz" in capsys.readouterr().err
