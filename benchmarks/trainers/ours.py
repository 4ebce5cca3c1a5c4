"""Our own trainer, through the loop that `mlpserve-train` runs."""

import time
from dataclasses import replace
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from mlpserve.datasets import Dataset
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.evaluation import scores
from mlpserve.trainer.fitting import Fit
from mlpserve.trainer.learning.engine import NUMPY, Engine, engine_of
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.recipes import FAST, SEED, SEED_FAST
from mlpserve.trainer.training_run import default_threads
from trainers.tasks import Outcome, Stopwatch, Task

_LEARNING_RATE: Final = 1e-3
_BATCH_SIZE: Final = 128


def run(task: Task, dataset: Dataset) -> Outcome:
    """Train with Adam on shuffled batches, as all participants do."""
    return _outcome(_recipe(task), task, dataset)


def run_numba(task: Task, dataset: Dataset) -> Outcome:
    """As ``run``, with the engine that Numba compiles."""
    return _outcome(_recipe(task), task, dataset, engine=engine_of("numba"))


def _recipe(task: Task) -> Recipe:
    return replace(
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


def _outcome(recipe: Recipe, task: Task, dataset: Dataset, engine: Engine = NUMPY) -> Outcome:
    """Run the training loop as the job does; the only place that knows how it is called."""
    spec, class_count = InputSpec(dataset.input_shape), len(dataset.class_labels)
    network = initial_network(recipe, spec.values_per_image, class_count)
    threads = min(task.threads, default_threads(recipe, network, len(dataset.train), engine))
    stopwatch, losses = Stopwatch(), []
    with threadpool_limits(1), ThreadPool(threads) as pool:
        training = Training(recipe, network, dataset.train, spec, pool=pool, engine=engine)
        fit = Fit(training, recipe, validation=None, spec=spec, clock=time.monotonic)
        fit.start()
        while (reason := fit.end_reason()) is None:
            record = fit.step()
            if record is not None:
                stopwatch.end_epoch()
                losses.append(record.train_loss)
        network = fit.outcome(reason).network
    return Outcome(
        stopwatch.seconds(),
        test_accuracy=scores(network.astype(np.float32), spec, dataset.test).accuracy,
        costs=[loss / class_count for loss in losses],
    )
