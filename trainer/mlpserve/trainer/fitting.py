"""Fit: a training from its beginning to its end, with validation, patience and a time limit.

Decides when to end and which network to keep, and remembers what each epoch found. Knows neither
files nor terminals: its caller runs the loop, shows what comes of it, and saves.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.evaluation import scores
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.learning.parameters import Vector, vector_of, views
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.shuffling import VALIDATION, stream
from mlpserve.trainer.learning.training import Position, Training

_BEST: Final = "best"  # the name of the best parameters in a saved state


@dataclass(frozen=True)
class FitState:
    """The memory of a fit, beside its training's parameters.

    Attributes:
        position: Where the training is.
        records: What each epoch so far found.
        elapsed_s: Seconds spent on the training so far.
        epoch_began_s: What ``elapsed_s`` was when the epoch began.
        lowest_loss: The lowest validation loss so far, in nats.
        lowest_epoch: The epoch that found it, from 0; -1 for none.
    """

    position: Position = field(default_factory=Position)
    records: tuple[EpochRecord, ...] = ()
    elapsed_s: float = 0.0
    epoch_began_s: float = 0.0
    lowest_loss: float = math.inf
    lowest_epoch: int = -1


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state of a fit, from which it can go on later as if it had never stopped.

    Attributes:
        state: Where it is.
        arrays: The vectors that go with it, by name; not copies.
    """

    state: FitState
    arrays: Mapping[str, Vector]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of a fit.

    Attributes:
        network: What was learned, in the recipe's dtype.
        records: What each epoch found.
        ended_because: Why there are no more epochs, and which network is kept where it is not the
            last, as the end of a sentence.
        elapsed_s: Seconds spent on the training.
    """

    network: Network
    records: Sequence[EpochRecord]
    ended_because: str
    elapsed_s: float


def hold_out(split: Split, recipe: Recipe) -> tuple[Split, Split | None]:
    """Return the images to learn from, and those to validate with, drawn at random by the seed.

    Raises:
        TrainingError: There would be none of one or the other.
    """
    if not recipe.validation_share:
        return split, None
    count = round(len(split) * recipe.validation_share)
    if not 0 < count < len(split):
        raise TrainingError(
            f"validation share: {recipe.validation_share:g} of {len(split)} images is {count}; "
            "expected at least one image to validate with, and one to learn from"
        )
    order = stream(recipe.seed, VALIDATION).permutation(len(split))
    # Sorted, so that neighbours in memory are read one after the other.
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return split.select(kept), split.select(held)


class Fit:
    """One run of a training, step by step.

    Its caller runs the loop, and may leave it between any two steps::

        fit.start()
        while (reason := fit.end_reason()) is None:
            record = fit.step()
        outcome = fit.outcome(reason)
    """

    def __init__(
        self,
        training: Training,
        recipe: Recipe,
        *,
        validation: Split | None,
        spec: InputSpec,
        clock: Callable[[], float],
        time_limit_s: float = math.inf,
    ) -> None:
        """Prepare a run.

        Args:
            training: What to run.
            recipe: How long, and what to keep.
            validation: What to validate with after each epoch.
            spec: What the network takes.
            clock: Seconds that only grow, like ``time.monotonic``.
            time_limit_s: After how many seconds of training to end, with what was learned by then.
        """
        self._training = training
        self._recipe = recipe
        self._validation = validation
        self._spec = spec
        self._clock = clock
        self._time_limit_s = time_limit_s
        self._state = FitState()
        self._best: Vector | None = None
        self._began_s = 0.0  # by the clock, were all of the training one run

    def start(self, snapshot: Snapshot | None = None) -> None:
        """Begin, or go on where a snapshot was taken; seconds count from now."""
        if snapshot is not None:
            self._training.restore(snapshot.arrays, snapshot.state.position)
            self._state = snapshot.state
            self._best = snapshot.arrays.get(_BEST)
        self._began_s = self._clock() - self._state.elapsed_s

    @property
    def epochs(self) -> int:
        """Return how many epochs are done."""
        return len(self._state.records)

    def end_reason(self) -> str | None:
        """Return why there is no next step, as the end of a sentence; None if there is one."""
        if self._training.position.steps >= self._training.steps:
            return "all epochs are done"
        if self._elapsed_s() >= self._time_limit_s:
            return f"the time limit of {self._time_limit_s:g} s is reached"
        epochs = self.epochs
        without_gain = epochs - 1 - self._state.lowest_epoch
        if self._recipe.patience_epochs and epochs and without_gain >= self._recipe.patience_epochs:
            return f"the validation loss has not fallen for {without_gain} epochs"
        return None

    def step(self) -> EpochRecord | None:
        """Learn from one batch; return what the epoch found if the step ended it, else None.

        Raises:
            TrainingError: The training diverged.
        """
        self._training.step()
        return self._end_epoch() if self._training.is_between_epochs else None

    def snapshot(self) -> Snapshot:
        """Return all that is needed to go on later; its arrays are good until the next step."""
        state = replace(self._state, position=self._training.position, elapsed_s=self._elapsed_s())
        best = {} if self._best is None else {_BEST: self._best}
        return Snapshot(state, {**self._training.state(), **best})

    def outcome(self, reason: str) -> Outcome:
        """Return what the training came to; ``reason`` is that of ``end_reason``."""
        reason += self._which_is_kept()
        return Outcome(self._kept_network(), self._state.records, reason, self._elapsed_s())

    def _which_is_kept(self) -> str:
        """Return what to add to the reason where it is another network than the last."""
        best = self._state.lowest_epoch
        is_last = best == len(self._state.records) - 1 and self._training.is_between_epochs
        if self._best is None or is_last:
            return ""
        return f"; the network of epoch {best + 1} is kept"

    def _end_epoch(self) -> EpochRecord:
        position, state = self._training.position, self._state
        network = self._training.network
        validation = self._validation and scores(network, self._spec, self._validation)
        elapsed_s = self._elapsed_s()
        record = EpochRecord(
            epoch=len(state.records),
            learning_rate=self._training.learning_rate(position.steps - 1),
            train_loss=position.loss_sum / position.images,
            train_accuracy=position.correct / position.images,
            validation_loss=validation.cross_entropy if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            elapsed_s=elapsed_s,
            images_per_s=position.images / max(elapsed_s - state.epoch_began_s, 1e-9),
        )
        self._remember(record, network)
        return record

    def _remember(self, record: EpochRecord, network: Network) -> None:
        lowest_loss, lowest_epoch = self._state.lowest_loss, self._state.lowest_epoch
        if record.validation_loss is not None and record.validation_loss < lowest_loss:
            lowest_loss, lowest_epoch = record.validation_loss, record.epoch
            if self._recipe.patience_epochs:
                self._best = vector_of(network)
        self._state = FitState(
            position=self._training.position,
            records=(*self._state.records, record),
            elapsed_s=record.elapsed_s,
            epoch_began_s=record.elapsed_s,
            lowest_loss=lowest_loss,
            lowest_epoch=lowest_epoch,
        )

    def _kept_network(self) -> Network:
        network = self._training.network
        return (
            network if self._best is None else network.with_parameters(views(self._best, network))
        )

    def _elapsed_s(self) -> float:
        return self._clock() - self._began_s
