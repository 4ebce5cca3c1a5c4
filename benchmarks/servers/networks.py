"""The networks that are served: of random weights, for speed does not depend on them."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata, Training
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from servers.protocols import MODEL

_SEED: Final = 11


def random_model(layer_sizes: tuple[int, ...]) -> Model:
    """Return a network with tanh layers, as version 1, that takes square images."""
    rng = np.random.default_rng(_SEED)
    activations = (*["tanh"] * (len(layer_sizes) - 2), "softmax")
    layers = [
        Layer(
            (rng.normal(size=(fan_in, fan_out)) / math.sqrt(fan_in)).astype(np.float32),
            rng.normal(size=fan_out).astype(np.float32),
            activation,
        )
        for fan_in, fan_out, activation in zip(
            layer_sizes[:-1], layer_sizes[1:], activations, strict=True
        )
    ]
    side = math.isqrt(layer_sizes[0])
    return Model(
        Network(tuple(layers)),
        Metadata(
            name=MODEL,
            version=1,
            layer_sizes=layer_sizes,
            activations=activations,
            input=InputSpec((side, side)),
            class_labels=tuple(map(str, range(layer_sizes[-1]))),
            training=_no_training(),
        ),
    )


def publish_random(models: Path, layer_sizes: tuple[int, ...]) -> Model:
    """Publish ``random_model`` into a folder, and return it."""
    model = random_model(layer_sizes)
    publish(models, model)
    return model


def _no_training() -> Training:
    return Training(
        recipe="random",
        hyperparameters={},
        seed=_SEED,
        data_name="none",
        data_digest="sha256:" + 64 * "0",
        train_accuracy=0.1,
        test_accuracy=0.1,
        created_at=datetime.fromtimestamp(0, UTC),
        library_versions={},
    )
