"""Training: steps of an optimizer over batches, which can stop between any two and go on later.

    batch -> shards of it, a thread each -> gradients -> their sum -> optimizer -> next batch

Knows neither files nor terminals, nor when to stop.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.backprop import (
    LOG_OFFSET,
    Batch,
    BatchResult,
)
from mlpserve.trainer.learning.batches import (
    Batches,
    ShuffledBatches,
    WarpedBatches,
    WholeBatch,
)
from mlpserve.trainer.learning.distillation import Distillation
from mlpserve.trainer.learning.engine import NUMPY, Engine
from mlpserve.trainer.learning.initialization import INITIALIZATIONS
from mlpserve.trainer.learning.optimizers import Step
from mlpserve.trainer.learning.parameters import Vector, vector_of, views
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.schedules import SCHEDULES
from mlpserve.trainer.learning.shuffling import DROPOUT, SIZES, Sizes, stream
from mlpserve.trainer.learning.thread_pool import ThreadPool, shard

# A loss so many times that of guessing is none that will still come down; nor is one half way from
# guessing to being surely wrong.
_DIVERGED_TIMES_GUESSING: Final = 4
_GENTLE_STRENGTH: Final = 0.3
# A first layer of so many outputs takes longer to compute than finding out what it need not do.
_WIDE_LAYER: Final = 64


@dataclass(frozen=True)
class Position:
    """The progress of a training: its steps, and what the epoch has found so far.

    Attributes:
        steps: Steps done, over all epochs.
        loss_sum: The sum of the images' losses in the epoch so far, in nats.
        correct: How many images of the epoch so far were classified rightly.
        images: How many images the epoch has taken so far.
    """

    steps: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    images: int = 0


def initial_network(recipe: Recipe, input_size: int, class_count: int) -> Network:
    """Return the network that a recipe begins with, in the recipe's dtype."""
    layer_sizes = (input_size, *recipe.hidden_sizes, class_count)
    network = INITIALIZATIONS[recipe.initialization](layer_sizes, recipe.activation, recipe.seed)
    return network.astype(recipe.parameter_dtype)


class Training:
    """One network on its way from what it begins with to what it becomes.

    The same recipe, images and number of threads give the same bits, whether or not the training
    was stopped, saved and restored in between.

    Attributes:
        steps_per_epoch: How many steps an epoch has.
        position: Where it is.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        images: Split,
        spec: InputSpec,
        *,
        pool: ThreadPool,
        teachers: Sequence[Network] = (),
        sizes: Sizes | None = None,
        engine: Engine = NUMPY,
    ) -> None:
        """Prepare a training.

        Args:
            recipe: How to train.
            network: What to begin with; see ``initial_network``. It is not changed.
            images: What to learn from.
            spec: What the network takes.
            pool: The threads to train with.
            teachers: Networks to learn from as well, of the same inputs and classes.
            sizes: How much is shuffled at a time; None for ``SIZES``.
            engine: What to compute by.
        """
        self._recipe = recipe
        self._pool = pool
        self._engine = engine
        self._parameters = vector_of(network)
        self._network = network.with_parameters(views(self._parameters, network))
        self._optimizer = engine.optimizers[recipe.optimizer](self._parameters)
        self._average = (
            engine.moving_average(self._parameters, recipe.average_decay)
            if recipe.average_decay
            else None
        )
        batch_size = recipe.batch_size or len(images)
        self._backpropagations = [
            engine.backpropagation(
                self._network,
                max_rows=-(-batch_size // pool.size),
                label_smoothing=recipe.label_smoothing,
                dropout=recipe.dropout,
                learned_probability=recipe.learned_probability,
                distillation=_distillation(recipe, teachers),
            )
            for _ in range(pool.size)
        ]
        self._batches = _batches(
            recipe, images, spec, pool=pool, sizes=sizes or SIZES, engine=engine
        )
        self.steps_per_epoch = len(self._batches)
        self.position = Position()

    @property
    def steps(self) -> int:
        """Return how many steps the whole training has."""
        return self._recipe.epochs * self.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Return the index of the epoch of the next step."""
        return self.position.steps // self.steps_per_epoch

    @property
    def is_between_epochs(self) -> bool:
        """Return whether the last step ended an epoch."""
        return self.position.steps % self.steps_per_epoch == 0

    @property
    def network(self) -> Network:
        """Return a copy of what was learned so far: of the mean, where the recipe averages."""
        best = self._parameters if self._average is None else self._average.mean
        return self._network.with_parameters(views(best.copy(), self._network))

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        factor = SCHEDULES[self._recipe.schedule](step, self.steps)
        return self._recipe.learning_rate * factor

    def step(self) -> None:
        """Learn from one batch.

        Raises:
            TrainingError: The loss is not finite, or far above that of guessing.
        """
        if self.is_between_epochs:
            self.position = Position(self.position.steps)
        epoch, index = divmod(self.position.steps, self.steps_per_epoch)
        batch = self._batches.batch(epoch, index)
        results = self._pool.run(lambda thread: self._pass(batch, thread))
        self._pool.run(self._update)
        self._advance(results, len(batch.labels))

    def state(self) -> Mapping[str, Vector]:
        """Return all that changes but the position: the arrays themselves, by name."""
        arrays = {"parameters": self._parameters, **self._optimizer.state}
        return arrays if self._average is None else {**arrays, "average": self._average.mean}

    def restore(self, state: Mapping[str, Vector], position: Position) -> None:
        """Go back, or forward, to where ``state`` and ``position`` were taken."""
        for name, array in self.state().items():
            array[:] = state[name]
        self.position = position

    def _pass(self, batch: Batch, thread: int) -> BatchResult:
        """Run a thread's shard of a batch forward and backward."""
        rows = shard(len(batch.labels), thread, self._pool.size)
        rng = None
        if self._recipe.dropout:
            rng = stream(self._recipe.seed, DROPOUT, self.position.steps, thread)
        return self._backpropagations[thread].run(batch, rows, rng=rng)

    def _update(self, thread: int) -> None:
        """Change a thread's shard of the parameters."""
        part = shard(len(self._parameters), thread, self._pool.size)
        gradient = self._engine.summed_gradient(self._backpropagations, thread, part)
        step = Step(
            self.position.steps + 1,
            self.learning_rate(self.position.steps),
            self._recipe.weight_decay,
        )
        self._optimizer.update(part, gradient, step)
        if self._average is not None:
            self._average.update(part, step.number)

    def _advance(self, results: list[BatchResult], batch_size: int) -> None:
        self.position = Position(
            steps=self.position.steps + 1,
            loss_sum=self.position.loss_sum + sum(result.loss for result in results) * batch_size,
            correct=self.position.correct + sum(result.correct for result in results),
            images=self.position.images + batch_size,
        )
        self._check_loss()

    def _check_loss(self) -> None:
        """Refuse to go on where the loss is not finite, or after an epoch far above guessing's."""
        loss = self.position.loss_sum / self.position.images
        guessing = math.log(self._network.layer_sizes[-1])
        # Of 100 classes, four times guessing is more than the loss of being surely wrong.
        half_way = (guessing - math.log(LOG_OFFSET)) / 2
        highest = min(_DIVERGED_TIMES_GUESSING * guessing, half_way)
        limit = highest if self.is_between_epochs else math.inf
        # Written so that a NaN, which compares false, is refused as well.
        if not (loss < math.inf and loss <= limit):
            raise TrainingError(
                f"the training diverged: in step {self.position.steps} of {self.steps} the loss is "
                f"{loss:.3g}, guessing has {guessing:.3g}; try a lower --learning-rate than "
                f"{self._recipe.learning_rate:g}"
            )


def _distillation(recipe: Recipe, teachers: Sequence[Network]) -> Distillation | None:
    alike = [teacher.astype(recipe.parameter_dtype) for teacher in teachers]
    return (
        Distillation(alike, recipe.teacher_share, recipe.teacher_temperature) if teachers else None
    )


def _batches(
    recipe: Recipe,
    images: Split,
    spec: InputSpec,
    *,
    pool: ThreadPool,
    sizes: Sizes,
    engine: Engine,
) -> Batches:
    sparse = None if recipe.warp else engine.sparse_inputs(images.images, spec)
    if recipe.batch_size == 0:
        return WholeBatch(images, spec, sparse=sparse)
    if recipe.warp is None:
        return ShuffledBatches(
            images,
            spec,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            skips_zero_columns=recipe.hidden_sizes[:1] >= (_WIDE_LAYER,),
            sizes=sizes,
            fill=engine.fill,
            sparse=sparse,
        )
    if len(spec.shape) != 2:  # noqa: PLR2004 - rows and columns
        raise TrainingError(
            f"warp: expected images of rows and columns to distort, got {spec.shape}; "
            "use a recipe that does not distort"
        )
    warp = recipe.warp
    gentle = warp.scaled(_GENTLE_STRENGTH)
    first_gentle_epoch = recipe.epochs - round(recipe.epochs * recipe.gentle_share)
    return WarpedBatches(
        images,
        spec,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        settings=lambda epoch: warp if epoch < first_gentle_epoch else gentle,
        pool=pool,
        sizes=sizes,
        sparse_inputs=engine.sparse_inputs,
    )
