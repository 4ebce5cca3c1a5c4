"""An activation that a newcomer adds: one line of the table, and all parts know it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mlpserve.client import Client
from mlpserve.datasets import load_dataset
from mlpserve.model.activations import ACTIVATIONS, Activation, FloatArray
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import weights_path
from mlpserve.model.network import Layer, Network, largest_sums
from mlpserve.model.weights import Model, load_model, save_model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.trainer.arguments import job_config, train_parser
from mlpserve.trainer.export.onnx_file import to_bytes
from mlpserve.trainer.job import run
from mlpserve.trainer.learning.initialization import he
from mlpserve.trainer.progress import display_for
from mlpserve.trainer.signals import StopSignals


def softsign(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    return np.asarray(np.divide(sums, 1 + np.abs(sums), out=out))


def softsign_backward(deltas: FloatArray, outputs: FloatArray) -> None:
    # With a = z / (1 + |z|), 1 - |a| = 1 / (1 + |z|); the derivative is its square.
    deltas *= np.square(1 - np.abs(outputs))


def leaky_relu(sums: FloatArray, out: FloatArray | None = None) -> FloatArray:
    return np.asarray(np.maximum(sums, sums * 0.01, out=out))


def leaky_relu_backward(deltas: FloatArray, outputs: FloatArray) -> None:
    deltas *= np.where(outputs > 0, 1, 0.01).astype(deltas.dtype)


NEW = {
    "softsign": Activation(
        softsign, softsign_backward, is_bounded=True, gain=1.5, onnx_operator="Softsign"
    ),
    "leaky-relu": Activation(
        leaky_relu, leaky_relu_backward, is_bounded=False, gain=2, onnx_operator="LeakyRelu"
    ),
}


@pytest.fixture(params=NEW)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a new activation, while the table has it."""
    name: str = request.param
    monkeypatch.setitem(ACTIVATIONS, name, NEW[name])
    return name


def network_of(name: str, size: float) -> Network:
    """Return a network of two hidden layers with weights of one size, six each."""
    first, second = (Layer(np.full((6, 6), size), np.zeros(6), name) for _ in range(2))
    return Network((first, second, Layer(np.full((6, 3), size), np.zeros(3), "softmax")))


def test_it_trains_loads_and_is_served(name: str, models: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(300) % 3
    images = rng.integers(0, 100, (300, 4, 6), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 150
    data = tmp_path / "thirds.npz"
    np.savez(
        data, x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:]
    )

    flags = ["--data", str(data), "--models", str(models), "--activation", name]
    flags += ["--layers", "12,8", "--batch-size", "16", "--epochs", "5"]
    run(job_config(train_parser().parse_args(flags)), display_for("json"), StopSignals())

    model = load_model(weights_path(models, "thirds", 1))
    assert model.metadata.activations == (name, name, "softmax")
    assert model.metadata.training.test_accuracy > 0.95
    test = load_dataset(str(data), data_dir=None).test.images
    inputs = model.metadata.input.scale(test)
    expected = model.network.probabilities(inputs)
    server = Server(ServerConfig(models=models, port=0))
    server.start()
    try:
        with Client(f"localhost:{server.port}") as client:
            served = client.predict(test).probabilities
    finally:
        server.stop()
    np.testing.assert_allclose(served, expected, atol=1e-5)
    session = onnxruntime.InferenceSession(to_bytes(model))
    (exported,) = session.run(["probabilities"], {"images": inputs})
    np.testing.assert_allclose(exported, expected, atol=1e-5)


def test_its_first_weights_have_its_gain(name: str) -> None:
    weights = he((400, 300, 3), name, seed=1).layers[0].weights
    assert np.var(weights) * 400 == pytest.approx(NEW[name].gain, rel=0.02)


@pytest.mark.parametrize("size", [0.5, 3])
def test_no_sum_is_above_its_bound(name: str, size: float) -> None:
    network = network_of(name, size)
    first, second, third = largest_sums(network)
    inputs: FloatArray = np.ones((1, 6))
    for layer, limit in zip(network.layers, (first, second, third), strict=True):
        assert np.abs(inputs @ layer.weights).max() <= limit
        inputs = layer.forward(inputs)
    assert second == pytest.approx(6 * size * (1 if name == "softsign" else first))


def test_weights_that_could_overflow_in_a_later_layer_are_refused_only_where_they_could(
    name: str, tmp_path: Path, model: Model
) -> None:
    # Sums of 6e19 in the first layer; after it, if nothing bounds them, of 36e38.
    network = network_of(name, 1e19).astype(np.float32)
    metadata = replace(
        model.metadata, layer_sizes=network.layer_sizes, activations=network.activations
    )
    path = tmp_path / "weights.npz"
    save_model(path, Model(network, metadata))
    if name == "softsign":
        assert load_model(path).network.activations == network.activations
    else:
        with pytest.raises(WeightsFileError, match="W2, b2: expected values with which no image"):
            load_model(path)
