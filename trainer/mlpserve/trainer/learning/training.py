"""Training: steps of an optimizer over batches, which can stop between any two and go on later.

    batch -> a learner changes the parameters -> what it found -> next batch

Learners are ``data_parallel`` and ``tensor_parallel``. Knows neither files nor terminals, nor when
to stop.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.backprop import LOG_OFFSET, BatchResult
from mlpserve.trainer.learning.batches import (
    Batches,
    ShuffledBatches,
    WarpedBatches,
    WholeBatch,
)
from mlpserve.trainer.learning.data_parallel import DataParallel
from mlpserve.trainer.learning.engine import NUMPY, Engine, Learner
from mlpserve.trainer.learning.initialization import INITIALIZATIONS
from mlpserve.trainer.learning.optimizers import Step
from mlpserve.trainer.learning.parameters import Vector, views
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.schedules import SCHEDULES
from mlpserve.trainer.learning.shuffling import SIZES, Sizes
from mlpserve.trainer.learning.thread_pool import ThreadPool

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
        self._network = network
        self._learner = _learner(recipe, network, len(images), teachers, pool=pool, engine=engine)
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
        return self._network.with_parameters(views(self._learner.learned(), self._network))

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
        steps = self.position.steps
        step = Step(steps + 1, self.learning_rate(steps), self._recipe.weight_decay)
        self._advance(self._learner.step(batch, step), len(batch.labels))

    def state(self) -> Mapping[str, Vector]:
        """Return all that changes but the position, by name; good until the next step."""
        return self._learner.state()

    def restore(self, state: Mapping[str, Vector], position: Position) -> None:
        """Go back, or forward, to where ``state`` and ``position`` were taken."""
        self._learner.restore(state)
        self.position = position

    def _advance(self, result: BatchResult, batch_size: int) -> None:
        self.position = Position(
            steps=self.position.steps + 1,
            loss_sum=self.position.loss_sum + result.loss * batch_size,
            correct=self.position.correct + result.correct,
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


def _learner(
    recipe: Recipe,
    network: Network,
    images: int,
    teachers: Sequence[Network],
    *,
    pool: ThreadPool,
    engine: Engine,
) -> Learner:
    by_columns = engine.tensor_parallel
    if pool.size > 1 and by_columns is not None and by_columns.suits(recipe, network, pool.size):
        return by_columns(recipe, network, pool)
    max_rows = recipe.batch_size or images
    return DataParallel(recipe, network, pool, engine=engine, max_rows=max_rows, teachers=teachers)


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
