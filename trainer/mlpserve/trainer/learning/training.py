"""The training loop: epochs of batches, each one step of the optimizer.

Knows neither files nor terminals; what it finds, it reports to its caller.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import FloatArray
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.backprop import Labels, loss_and_gradients
from mlpserve.trainer.learning.initialization import INITIALIZATIONS
from mlpserve.trainer.learning.optimizers import OPTIMIZERS
from mlpserve.trainer.learning.schedules import SCHEDULES
from mlpserve.trainer.recipes import Recipe


@dataclass(frozen=True)
class EpochReport:
    """What one epoch found; each batch was judged just before the step that learned from it.

    Attributes:
        epoch: The index of the epoch, from 0.
        epochs: How many there are.
        loss: The mean cross-entropy of the images, in nats.
        accuracy: The share of the images classified rightly, 0 to 1.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float


def initial_network(recipe: Recipe, input_size: int, class_count: int) -> Network:
    """Return the network that a recipe begins with, in the recipe's dtype."""
    layer_sizes = (input_size, *recipe.hidden_sizes, class_count)
    network = INITIALIZATIONS[recipe.initialization](layer_sizes, recipe.activation, recipe.seed)
    return network.astype(recipe.parameter_dtype)


def train(
    network: Network,
    inputs: FloatArray,
    labels: Labels,
    recipe: Recipe,
    report: Callable[[EpochReport], None],
) -> Network:
    """Return a network that has learned from the images; ``network`` itself is not changed.

    Args:
        network: What to begin with; see ``initial_network``.
        inputs: (N, D) values in [0, 1], of the recipe's dtype.
        labels: (N,) true classes, each from 0 to K - 1.
        recipe: How to train.
        report: Called after each epoch that the recipe wants reported.

    Raises:
        TrainingError: The loss is no longer finite.
    """
    network = network.with_parameters([array.copy() for array in network.parameters])
    optimizer = OPTIMIZERS[recipe.optimizer](network.parameters)
    learning_rate = SCHEDULES[recipe.schedule]
    # A stream of its own, apart from the one that the initial weights were drawn from.
    rng = np.random.default_rng((recipe.seed, 1))
    steps_per_epoch = -(-len(inputs) // (recipe.batch_size or len(inputs)))
    steps = recipe.epochs * steps_per_epoch
    for epoch in range(recipe.epochs):
        loss, correct = 0.0, 0
        batches = _batches(len(inputs), recipe.batch_size, rng)
        for step, rows in enumerate(batches, start=epoch * steps_per_epoch):
            batch_labels = labels[rows]
            result = loss_and_gradients(network, inputs[rows], batch_labels)
            optimizer.step(result.gradients, recipe.learning_rate * learning_rate(step, steps))
            loss += result.loss * len(batch_labels) / len(labels)
            correct += result.correct
        _check_finite(loss, epoch)
        if epoch % recipe.report_every_epochs == 0:
            report(EpochReport(epoch, recipe.epochs, loss, correct / len(labels)))
    return network


def _batches(
    count: int, batch_size: int, rng: np.random.Generator
) -> Iterator[slice | npt.NDArray[np.int64]]:
    """Yield the rows of each batch of one epoch: all in order, or shuffled and cut up."""
    if batch_size == 0:
        yield slice(None)
        return
    order = rng.permutation(count)
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]


def _check_finite(loss: float, epoch: int) -> None:
    if not np.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in epoch {epoch + 1}: the training diverged; "
            "try a lower --learning-rate"
        )
