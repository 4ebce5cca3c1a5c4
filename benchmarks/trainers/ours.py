"""Our own trainer, through the loop that `mlpserve-train` runs."""

import time
from dataclasses import replace
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from mlpserve.datasets import Dataset
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.evaluation import accuracy
from mlpserve.trainer.fitting import Fit, Observer
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.job import default_threads
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.team import Team
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.recipes import FAST, SEED, SEED_FAST
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
        validation_share=0.0,
    )
    return _outcome(recipe, task, dataset)


def run_seed(task: Task, dataset: Dataset) -> Outcome:
    """Train with the recipe ``seed``, the exact form: an epoch is one iteration over all images."""
    return _seed_outcome(SEED, task, dataset)


def run_seed_fast(task: Task, dataset: Dataset) -> Outcome:
    """Train with the recipe ``seed-fast``: the same mathematics in float32."""
    return _seed_outcome(SEED_FAST, task, dataset)


def _seed_outcome(recipe: Recipe, task: Task, dataset: Dataset) -> Outcome:
    recipe = replace(
        recipe, hidden_sizes=task.hidden_sizes, epochs=task.epochs + 1, report_every_epochs=1
    )
    return _outcome(recipe, task, dataset)


class _Observer(Observer):
    """Takes the time and the loss of each epoch."""

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()
        self.losses: list[float] = []

    def after_epoch(self, record: EpochRecord) -> None:
        self.stopwatch.end_epoch()
        self.losses.append(record.train_loss)


def _outcome(recipe: Recipe, task: Task, dataset: Dataset) -> Outcome:
    observer = _Observer()
    network = _train(recipe, dataset, threads=task.threads, observer=observer)
    spec = InputSpec(dataset.input_shape)
    class_count = len(dataset.class_labels)
    return Outcome(
        observer.stopwatch.seconds(),
        test_accuracy=accuracy(network.astype(np.float32), spec, dataset.test),
        costs=[loss / class_count for loss in observer.losses],
    )


def _train(recipe: Recipe, dataset: Dataset, *, threads: int, observer: Observer) -> Network:
    """Call the training loop as the job does; the only place that knows how it is called."""
    spec = InputSpec(dataset.input_shape)
    network = initial_network(recipe, spec.values_per_image, len(dataset.class_labels))
    threads = min(threads, default_threads(recipe, network, len(dataset.train)))
    with threadpool_limits(1), Team(threads) as team:
        training = Training(recipe, network, dataset.train, spec, team=team)
        fit = Fit(training, recipe, validation=None, spec=spec, clock=time.monotonic)
        return fit.run(observer).network
