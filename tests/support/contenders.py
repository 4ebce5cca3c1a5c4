"""Versions and images for tests of comparisons."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata, Training
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model
from mlpserve.trainer.comparison.comparison import Comparison, Contender, compare


def model_of(
    training: Training,
    *,
    version: int = 1,
    shape: tuple[int, ...] = (4, 4),
    class_labels: Sequence[str] = ("cat", "dog", "bird"),
    hidden: int = 5,
    seed: int = 1,
) -> Model:
    """Return a random network, which finds all its classes."""
    rng = np.random.default_rng(seed)
    sizes = (int(np.prod(shape)), hidden, len(class_labels))
    layers = tuple(
        Layer(
            rng.normal(size=(fan_in, fan_out)).astype(np.float32),
            np.zeros(fan_out, np.float32),
            activation,
        )
        for fan_in, fan_out, activation in zip(
            sizes[:-1], sizes[1:], ("tanh", "softmax"), strict=True
        )
    )
    metadata = Metadata(
        name="tiny",
        version=version,
        layer_sizes=sizes,
        activations=("tanh", "softmax"),
        input=InputSpec(shape),
        class_labels=tuple(class_labels),
        training=training,
    )
    return Model(Network(layers), metadata)


def contender(model: Model) -> Contender:
    """Return a version as it takes part in a comparison."""
    name = f"{model.metadata.name}:{model.metadata.version}"
    return Contender(name, f"models/tiny/{model.metadata.version}/weights.npz", 1000, model)


def split_of(model: Model, *, count: int = 200) -> Split:
    """Return random images and labels."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (count, *model.metadata.input.shape), np.uint8)
    return Split(images, rng.integers(0, len(model.metadata.class_labels), count))


def comparison_of(
    training: Training,
    *,
    class_labels: Sequence[str] = ("cat", "dog", "bird"),
    shape: tuple[int, ...] = (4, 4),
    data_digest: str | None = None,
    seeds: tuple[int, int] = (1, 2),
    count: int = 200,
) -> Comparison:
    """Return the comparison of two random networks."""
    other = training if data_digest is None else replace(training, data_digest=data_digest)
    first, second = (
        model_of(each, version=version, shape=shape, class_labels=class_labels, seed=seed)
        for version, (each, seed) in enumerate(zip((training, other), seeds, strict=True), start=1)
    )
    return compare(contender(first), contender(second), split_of(first, count=count), "pets")
