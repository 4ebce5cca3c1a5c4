"""The recipes: complete, named sets of settings, each of which may be changed on its own."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from mlpserve.model.activations import HIDDEN_ACTIVATIONS
from mlpserve.trainer.errors import TrainingError

_LARGEST_WIDTH: Final = 65_536


@dataclass(frozen=True)
class Recipe:
    """How a network is built and trained; checked when it is made.

    Attributes:
        name: What the recipe is called.
        hidden_sizes: The width of each hidden layer.
        activation: The activation of the hidden layers.
        initialization: A key of ``initialization.INITIALIZATIONS``.
        optimizer: A key of ``optimizers.OPTIMIZERS``.
        schedule: A key of ``schedules.SCHEDULES``.
        learning_rate: The peak learning rate.
        epochs: How often each training image is seen.
        batch_size: Images per step; 0 for all at once, in their given order.
        dtype: What the training computes in, "float32" or "float64".
        seed: The seed of all randomness.
        report_every_epochs: How often progress is reported.
        report_line: What is reported: a key of ``progress.LINES``.

    Raises:
        TrainingError: A setting is out of its range.
    """

    name: str
    hidden_sizes: tuple[int, ...]
    activation: str
    initialization: str
    optimizer: str
    schedule: str
    learning_rate: float
    epochs: int
    batch_size: int
    dtype: str
    seed: int
    report_every_epochs: int
    report_line: str

    def __post_init__(self) -> None:
        if not all(1 <= size <= _LARGEST_WIDTH for size in self.hidden_sizes):
            raise TrainingError(
                f"layers: expected widths from 1 to {_LARGEST_WIDTH}, got {self.hidden_sizes}"
            )
        if self.activation not in HIDDEN_ACTIVATIONS:
            raise TrainingError(
                f"activation: expected {', '.join(HIDDEN_ACTIVATIONS)}, got {self.activation!r}"
            )
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise TrainingError(f"learning rate: expected above 0, got {self.learning_rate}")
        if self.epochs < 1:
            raise TrainingError(f"epochs: expected at least 1, got {self.epochs}")
        if self.batch_size < 0:
            raise TrainingError(
                f"batch size: expected at least 1, or 0 for all images, got {self.batch_size}"
            )
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"seed: expected from 0 to {2**32 - 1}, got {self.seed}")

    @property
    def parameter_dtype(self) -> type[np.floating[Any]]:
        """Return ``dtype`` as NumPy's."""
        return np.float64 if self.dtype == "float64" else np.float32

    def hyperparameters(self) -> dict[str, str | int | float]:
        """Return the settings that a version's metadata keeps beside its name, seed and layers."""
        elsewhere = {"name", "seed", "hidden_sizes", "activation"}
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in elsewhere and not key.startswith("report_")
        }


SEED: Final = Recipe(
    name="seed",  # the tutorial that this project grew from
    hidden_sizes=(16, 16),
    activation="tanh",
    initialization="tutorial",
    optimizer="gradient-descent",
    schedule="tutorial",
    learning_rate=0.5,
    epochs=150,
    batch_size=0,
    dtype="float64",
    seed=2,
    report_every_epochs=10,
    report_line="tutorial",
)
FAST: Final = Recipe(
    name="fast",
    hidden_sizes=(128,),
    activation="relu",
    initialization="he",
    optimizer="adam",
    schedule="one-cycle",
    learning_rate=1e-2,
    epochs=3,
    batch_size=128,
    dtype="float32",
    seed=0,
    report_every_epochs=1,
    report_line="epoch",
)
RECIPES: Final[Mapping[str, Recipe]] = {recipe.name: recipe for recipe in (FAST, SEED)}
