"""Our own trainer, through the loop that `mlpserve-train` runs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from mlpserve.datasets import Dataset
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.evaluation import accuracy
from mlpserve.trainer.learning.training import EpochReport, initial_network, train
from mlpserve.trainer.recipes import FAST, RECIPES, Recipe
from trainers.tasks import Outcome, Stopwatch, Task

_LEARNING_RATE: Final = 1e-3
_BATCH_SIZE: Final = 128


def run(task: Task, dataset: Dataset) -> Outcome:
    """Train with Adam on shuffled batches, as all participants do."""
    recipe = replace(
        FAST,
        hidden_sizes=task.hidden_sizes,
        activation=task.activation,
        schedule="constant",
        learning_rate=_LEARNING_RATE,
        batch_size=_BATCH_SIZE,
        epochs=task.epochs + 1,
        seed=task.seed,
    )
    return _outcome(recipe, task, dataset)


def run_seed(task: Task, dataset: Dataset) -> Outcome:
    """Train with the recipe ``seed``, the exact form: an epoch is one iteration over all images."""
    return _seed_outcome(RECIPES["seed"], task, dataset)


def run_seed_fast(task: Task, dataset: Dataset) -> Outcome:
    """Train with the recipe ``seed-fast``: the same mathematics in float32."""
    recipe = RECIPES.get("seed-fast", replace(RECIPES["seed"], dtype="float32"))
    return _seed_outcome(recipe, task, dataset)


def _seed_outcome(recipe: Recipe, task: Task, dataset: Dataset) -> Outcome:
    recipe = replace(
        recipe, hidden_sizes=task.hidden_sizes, epochs=task.epochs + 1, report_every_epochs=1
    )
    return _outcome(recipe, task, dataset)


def _outcome(recipe: Recipe, task: Task, dataset: Dataset) -> Outcome:
    stopwatch = Stopwatch()
    losses: list[float] = []

    def report(epoch: EpochReport) -> None:
        stopwatch.end_epoch()
        losses.append(epoch.loss)

    network = _train(recipe, dataset, threads=task.threads, report=report)
    spec = InputSpec(dataset.input_shape)
    class_count = len(dataset.class_labels)
    return Outcome(
        stopwatch.seconds(),
        test_accuracy=accuracy(network.astype(np.float32), spec, dataset.test),
        costs=[loss / class_count for loss in losses],
    )


def _train(
    recipe: Recipe, dataset: Dataset, *, threads: int, report: Callable[[EpochReport], None]
) -> Network:
    """Call the training loop as the job does; the only place that knows how it is called."""
    del threads  # the loop has one
    spec = InputSpec(dataset.input_shape)
    inputs = spec.scale(dataset.train.images, recipe.parameter_dtype)
    network = initial_network(recipe, spec.values_per_image, len(dataset.class_labels))
    with threadpool_limits(1):
        return train(network, inputs, dataset.train.labels, recipe, report)
