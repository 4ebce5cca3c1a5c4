"""Data parallelism: threads share out the rows of a batch; their gradients are summed.

    batch -> shards of it, a thread each -> gradients -> their sum -> optimizer

For every recipe and engine; where threads have the same weights to pack and a whole gradient to sum
for a few rows each, ``tensor_parallel`` is faster.
"""

from collections.abc import Mapping, Sequence

from mlpserve.model.network import Network
from mlpserve.trainer.learning.backprop import Batch, BatchResult
from mlpserve.trainer.learning.distillation import Distillation
from mlpserve.trainer.learning.engine import Engine
from mlpserve.trainer.learning.optimizers import Step
from mlpserve.trainer.learning.parameters import Vector, vector_of, views
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.shuffling import DROPOUT, stream
from mlpserve.trainer.learning.thread_pool import ThreadPool, shard


class DataParallel:
    """Learns from batches with one thread, or with several of which each has some of the rows."""

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        pool: ThreadPool,
        *,
        engine: Engine,
        max_rows: int,
        teachers: Sequence[Network] = (),
    ) -> None:
        """Allocate what all steps need.

        Args:
            recipe: How to train.
            network: What to begin with; it is not changed.
            pool: The threads.
            engine: What to compute by.
            max_rows: The most rows of a batch.
            teachers: Networks to learn from as well.
        """
        self._recipe = recipe
        self._pool = pool
        self._engine = engine
        self._parameters = vector_of(network)
        network = network.with_parameters(views(self._parameters, network))
        self._optimizer = engine.optimizers[recipe.optimizer](self._parameters)
        self._average = (
            engine.moving_average(self._parameters, recipe.average_decay)
            if recipe.average_decay
            else None
        )
        self._backpropagations = [
            engine.backpropagation(
                network,
                max_rows=-(-max_rows // pool.size),
                label_smoothing=recipe.label_smoothing,
                dropout=recipe.dropout,
                learned_probability=recipe.learned_probability,
                distillation=_distillation(recipe, teachers),
            )
            for _ in range(pool.size)
        ]

    def learned(self) -> Vector:
        """See ``Learner.learned``."""
        best = self._parameters if self._average is None else self._average.mean
        return best.copy()

    def step(self, batch: Batch, step: Step) -> BatchResult:
        """See ``Learner.step``."""
        results = self._pool.run(lambda thread: self._pass(batch, step, thread))
        self._pool.run(lambda thread: self._update(step, thread))
        return BatchResult(
            sum(result.loss for result in results), sum(result.correct for result in results)
        )

    def state(self) -> Mapping[str, Vector]:
        """See ``Learner.state``."""
        arrays = {"parameters": self._parameters, **self._optimizer.state}
        return arrays if self._average is None else {**arrays, "average": self._average.mean}

    def restore(self, state: Mapping[str, Vector]) -> None:
        """See ``Learner.restore``."""
        for name, array in self.state().items():
            array[:] = state[name]

    def _pass(self, batch: Batch, step: Step, thread: int) -> BatchResult:
        """Run a thread's shard of a batch forward and backward."""
        rows = shard(len(batch.labels), thread, self._pool.size)
        rng = None
        if self._recipe.dropout:
            rng = stream(self._recipe.seed, DROPOUT, step.number - 1, thread)
        return self._backpropagations[thread].run(batch, rows, rng=rng)

    def _update(self, step: Step, thread: int) -> None:
        """Change a thread's shard of the parameters."""
        part = shard(len(self._parameters), thread, self._pool.size)
        gradient = self._engine.summed_gradient(self._backpropagations, thread, part)
        self._optimizer.update(part, gradient, step)
        if self._average is not None:
            self._average.update(part, step.number)


def _distillation(recipe: Recipe, teachers: Sequence[Network]) -> Distillation | None:
    alike = [teacher.astype(recipe.parameter_dtype) for teacher in teachers]
    return (
        Distillation(alike, recipe.teacher_share, recipe.teacher_temperature) if teachers else None
    )
