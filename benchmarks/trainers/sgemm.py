"""Peak of this machine: how fast it multiplies matrices, which shares of the peak refer to."""

import time
from typing import Final

import numpy as np

from mlpserve.datasets import Dataset
from trainers.tasks import Outcome, Task

# Large enough for its own overhead to vanish, small enough for three of them to fit any memory.
SIDE: Final = 2048
PRODUCT_OPERATIONS: Final = 2 * SIDE**3
_PRODUCTS: Final = 6


def run(task: Task, dataset: Dataset) -> Outcome:  # noqa: ARG001 - of the shape of all
    """Return how long some float32 products of two square matrices took, by NumPy's BLAS."""
    rng = np.random.default_rng(task.seed)
    left, right = (rng.random((SIDE, SIDE), np.float32) for _ in range(2))
    product = left @ right  # warms up
    return Outcome([_seconds(left, right, product) for _ in range(_PRODUCTS)])


def _seconds(
    left: np.typing.NDArray[np.float32],
    right: np.typing.NDArray[np.float32],
    out: np.typing.NDArray[np.float32],
) -> float:
    started = time.perf_counter()
    np.matmul(left, right, out=out)
    return time.perf_counter() - started
