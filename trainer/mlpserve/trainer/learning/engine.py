"""Engines: by which code a training computes. NumPy is always there, Numba is an extra.

A training on either follows the same formulas, and comes to the same but for rounding.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.averaging import MovingAverage
from mlpserve.trainer.learning.backprop import (
    Backpropagation,
    Batch,
    BatchResult,
    summed_gradient,
)
from mlpserve.trainer.learning.batches import Fill, SparseInputs, fill_inputs
from mlpserve.trainer.learning.optimizers import OPTIMIZERS, Gradient, Optimizer, Step
from mlpserve.trainer.learning.parameters import Vector
from mlpserve.trainer.learning.recipe import Recipe

if TYPE_CHECKING:
    from mlpserve.trainer.learning.numba_engine.tensor_parallel import TensorParallel

NUMPY_NAME: Final = "numpy"
NUMBA_NAME: Final = "numba"
ENGINE_NAMES: Final = (NUMPY_NAME, NUMBA_NAME)

# Some ten seconds of training, of which Numba saves a third, and takes one or two to start.
_MIN_OPERATIONS_FOR_NUMBA: Final = 1e12


class Learner(Protocol):
    """Changes the parameters of a network, batch by batch."""

    def step(self, batch: Batch, step: Step) -> BatchResult:
        """Learn from one batch."""

    def learned(self) -> Vector:
        """Return a copy of the parameters: of their mean, where the recipe averages."""

    def state(self) -> Mapping[str, Vector]:
        """Return all that changes, by name, each in the order of a network's parameters.

        The arrays are good until the next step.
        """

    def restore(self, state: Mapping[str, Vector]) -> None:
        """Go to where a state was taken."""


@dataclass(frozen=True)
class Engine:
    """The code that a training computes by.

    Attributes:
        name: What users call it.
        backpropagation: Passes batches through a network.
        optimizers: As ``OPTIMIZERS``.
        moving_average: Averages the parameters.
        summed_gradient: See ``backprop.summed_gradient``.
        fill: Writes the inputs of shuffled batches.
        sparse_inputs: Returns what batches take inputs without zeros from; None where that does not
            pay.
        tensor_parallel: Learns with several threads where that is faster than data parallelism;
            None if the engine has it not.
    """

    name: str
    backpropagation: type[Backpropagation]
    optimizers: Mapping[str, Callable[[Vector], Optimizer]]
    moving_average: type[MovingAverage]
    summed_gradient: Callable[[Sequence[Any], int, slice], Gradient]
    fill: Fill
    sparse_inputs: Callable[[Any, InputSpec], SparseInputs | None] = lambda _images, _spec: None
    tensor_parallel: "type[TensorParallel] | None" = None


NUMPY: Final = Engine(
    NUMPY_NAME, Backpropagation, OPTIMIZERS, MovingAverage, summed_gradient, fill_inputs
)


def has_numba() -> bool:
    """Return whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None


def default_engine(recipe: Recipe, network: Network, images: int) -> str:
    """Return the name of the engine that is through first."""
    operations = operations_per_row(network) * images * recipe.epochs
    return NUMBA_NAME if has_numba() and operations >= _MIN_OPERATIONS_FOR_NUMBA else NUMPY_NAME


def operations_per_row(network: Network) -> int:
    """Return how many operations an image takes: two a weight forward, and four backward."""
    return 6 * sum(layer.weights.size for layer in network.layers)


def engine_of(name: str) -> Engine:
    """Return an engine by its name.

    Raises:
        TrainingError: It is not installed.
    """
    if name == NUMPY_NAME:
        return NUMPY
    if not has_numba():
        raise TrainingError(
            "engine: numba is not installed; pip install 'mlpserve[numba]', or use numpy"
        )
    # Only now: it takes a second.
    compiled, sparse, tensor_parallel = (
        importlib.import_module(f"mlpserve.trainer.learning.numba_engine.{module}")
        for module in ("compiled", "sparse", "tensor_parallel")
    )
    return Engine(
        NUMBA_NAME,
        compiled.CompiledBackpropagation,
        {**OPTIMIZERS, "adam": compiled.CompiledAdam},
        compiled.CompiledMovingAverage,
        compiled.SummedGradient,
        compiled.fill_inputs,
        sparse.sparse_images,
        tensor_parallel.TensorParallel,
    )
