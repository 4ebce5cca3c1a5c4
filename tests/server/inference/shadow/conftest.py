"""Two versions of the tiny model that often disagree, and images to ask them of."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model

Rows = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Return (300, 6) random images."""
    return np.random.default_rng(9).integers(0, 256, (300, 6), np.uint8)


@pytest.fixture
def other_model(model: Model) -> Model:
    """Return the tiny model with another network, which often disagrees."""
    rng = np.random.default_rng(5)

    def layer(fan_in: int, fan_out: int, activation: str) -> Layer:
        weights = rng.normal(size=(fan_in, fan_out)).astype(np.float32)
        return Layer(weights, rng.normal(size=fan_out).astype(np.float32), activation)

    network = Network((layer(6, 4, "tanh"), layer(4, 3, "softmax")))
    return replace(model, network=network)


@pytest.fixture
def stable(model: Model) -> CompiledModel:
    """Return the tiny model, ready to be run."""
    return CompiledModel(model)


@pytest.fixture
def canary(other_model: Model) -> CompiledModel:
    """Return the other one, as version 2."""
    return CompiledModel(replace(other_model, metadata=replace(other_model.metadata, version=2)))
