"""Speed of networks, measured in turn, so that whatever else the machine does slows all alike."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.weights import Model

BATCH_SIZES: Final = (1, 1024)
_ROUNDS: Final = 101
_MIN_ROUNDS: Final = 5
_BUDGET_S: Final = 1.0  # for one batch size; large networks have fewer rounds for it
_MIN_TIMED_S: Final = 0.0005  # less is lost in what the clock itself takes
_MAX_PASSES: Final = 1000  # where a clock is too coarse to see one

HOW_MEASURED: Final = (
    "One pass from the values of the images to the probabilities, as the server computes it: on "
    f"one thread of this machine, without gRPC, the two in turn for up to {_ROUNDS} rounds; the "
    "figures are medians."
)


@dataclass(frozen=True)
class Speed:
    """How fast some networks are with batches of one size.

    Attributes:
        batch: How many images are classified at once.
        images_per_s: The median of each network.
        ratio: The median of the second's speed by the first's, round by round.
        rounds: How often each was measured.
    """

    batch: int
    images_per_s: tuple[float, ...]
    ratio: float
    rounds: int


def measure(
    models: Sequence[Model], images: npt.NDArray[Any], clock: Callable[[], float]
) -> list[Speed]:
    """Return how fast two models are, for each of ``BATCH_SIZES``.

    Args:
        models: The two models.
        images: (N, ...) images that both take, at least one; repeated where there are too few.
        clock: Returns the time in seconds.
    """
    compiled = [CompiledModel(model) for model in models]
    workspace = Workspace()
    flat = images.reshape(len(images), -1)
    if flat.dtype != np.uint8:
        flat = flat.astype(np.float32, copy=False)
    return [_speed(compiled, _repeated(flat, batch), workspace, clock) for batch in BATCH_SIZES]


def _repeated(images: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    return images[np.arange(count) % len(images)]


def _speed(
    models: Sequence[CompiledModel],
    batch: npt.NDArray[Any],
    workspace: Workspace,
    clock: Callable[[], float],
) -> Speed:
    def seconds(model: CompiledModel, passes: int) -> float:
        start = clock()
        for _ in range(passes):
            model.classify([batch], workspace)
        return max(clock() - start, 1e-9) / passes

    for model in models:  # memory is had and caches are warm from the second pass on
        seconds(model, 1)
    slowest = max(seconds(model, 1) for model in models)
    passes = min(math.ceil(_MIN_TIMED_S / slowest), _MAX_PASSES)
    rounds = int(_BUDGET_S / (len(models) * passes * slowest))
    rounds = min(max(rounds, _MIN_ROUNDS), _ROUNDS)
    # The first one goes second every other time: the one that follows the other is not the same.
    order = [models if number % 2 else models[::-1] for number in range(rounds)]
    timed = [{model: seconds(model, passes) for model in turn} for turn in order]
    first, second = models
    return Speed(
        batch=len(batch),
        images_per_s=tuple(
            len(batch) / statistics.median(each[model] for each in timed) for model in models
        ),
        ratio=statistics.median(each[first] / each[second] for each in timed),
        rounds=rounds,
    )
