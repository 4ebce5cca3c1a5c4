"""Recipe: all settings of a training in one value, which is checked when it is made."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from mlpserve.model.activations import ACTIVATIONS
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.initialization import INITIALIZATIONS
from mlpserve.trainer.learning.optimizers import OPTIMIZERS
from mlpserve.trainer.learning.schedules import SCHEDULES
from mlpserve.trainer.learning.warps import WarpSettings

_MAX_WIDTH: Final = 65_536
_DTYPES: Final = ("float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a network and its training; checked when it is made.

    Attributes:
        name: What the recipe is called.
        hidden_sizes: The width of each hidden layer.
        activation: The activation of the hidden layers.
        initialization: A key of ``initialization.INITIALIZATIONS``.
        optimizer: A key of ``optimizers.OPTIMIZERS``.
        schedule: A key of ``schedules.SCHEDULES``.
        learning_rate: The peak learning rate.
        epochs: How often each training image is seen.
        batch_size: Images per step; 0 for all at once.
        dtype: What the training computes in, "float32" or "float64".
        seed: The seed of all randomness.
        weight_decay: See ``optimizers.Step``.
        label_smoothing: See ``backprop``; from 0 to below 1.
        dropout: The share of hidden outputs that each step does without, from 0 to below 1.
        average_decay: How much of the parameters' running mean each step keeps, and so that the
            mean is published and not the last parameters; from 0, which is neither, to below 1.
        learned_probability: See ``backprop.Backpropagation``; above 0 and up to 1, which leaves
            out nothing.
        teachers: Published versions to learn from, as ``NAME:VERSION``; see ``distillation``.
        teacher_share: How much of the loss is theirs and not the labels'; above 0 and up to 1.
        teacher_temperature: How far their probabilities are softened; at least 1, for not at all.
        warp: How images are distorted before they are learned from; None for not at all.
        gentle_share: The share of the epochs, the last ones, in which they are distorted less, so
            that the training ends on images like those that are to be classified; from 0 to
            below 1.
        validation_share: The share of the training images that are not learned from, but tell how
            the training goes and how sure the network may be; from 0 to below 1.
        patience_epochs: After how many epochs without a lower validation loss the training ends,
            with the network of the lowest; 0 for never.
        report_every_epochs: How often progress is reported.
        report_line: What is reported: a key of ``progress.LINES``.

    Raises:
        TrainingError: A setting is out of its range.
    """

    name: str
    hidden_sizes: tuple[int, ...]
    activation: str
    initialization: str = "he"
    optimizer: str = "adam"
    schedule: str
    learning_rate: float
    epochs: int
    batch_size: int
    dtype: str = "float32"
    seed: int = 0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    dropout: float = 0.0
    average_decay: float = 0.0
    learned_probability: float = 1.0
    teachers: tuple[str, ...] = ()
    teacher_share: float = 1.0
    teacher_temperature: float = 3.0
    warp: WarpSettings | None = None
    gentle_share: float = 0.0
    validation_share: float = 0.0
    patience_epochs: int = 0
    report_every_epochs: int = 1
    report_line: str = "epoch"

    def __post_init__(self) -> None:
        if not all(1 <= size <= _MAX_WIDTH for size in self.hidden_sizes):
            raise TrainingError(
                f"layers: expected widths from 1 to {_MAX_WIDTH}, got {self.hidden_sizes}"
            )
        self._check_choices()
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise TrainingError(
                f"learning rate: expected above 0 and finite, got {self.learning_rate}"
            )
        self._check_counts()
        self._check_shares()
        self._check_combinations()

    @property
    def parameter_dtype(self) -> type[np.floating[Any]]:
        """Return ``dtype`` as NumPy's."""
        return np.float64 if self.dtype == "float64" else np.float32

    def settings(self) -> dict[str, Any]:
        """Return all settings by name; of teachers only where there are any, as before them."""
        settings = asdict(self)
        if not self.teachers:
            for setting in ("teachers", "teacher_share", "teacher_temperature"):
                del settings[setting]
        return settings

    def hyperparameters(self) -> dict[str, str | int | float]:
        """Return the settings that a version's metadata keeps beside its name, seed and layers."""
        elsewhere = {"name", "seed", "hidden_sizes", "activation", "warp", "teachers"}
        settings: dict[str, str | int | float] = {
            key: value
            for key, value in self.settings().items()
            if key not in elsewhere and not key.startswith("report_")
        }
        if self.teachers:
            settings["teachers"] = ", ".join(self.teachers)
        warp = {} if self.warp is None else asdict(self.warp)
        return settings | {f"warp_{key}": value for key, value in warp.items()}

    def _check_choices(self) -> None:
        choices: dict[str, tuple[str, Mapping[str, object] | tuple[str, ...]]] = {
            "activation": (self.activation, ACTIVATIONS),
            "initialization": (self.initialization, INITIALIZATIONS),
            "optimizer": (self.optimizer, OPTIMIZERS),
            "schedule": (self.schedule, SCHEDULES),
            "dtype": (self.dtype, _DTYPES),
        }
        for setting, (choice, known) in choices.items():
            if choice not in known:
                raise TrainingError(f"{setting}: expected {', '.join(known)}, got {choice!r}")

    def _check_counts(self) -> None:
        if self.epochs < 1:
            raise TrainingError(f"epochs: expected at least 1, got {self.epochs}")
        if self.batch_size < 0:
            raise TrainingError(
                f"batch size: expected at least 1, or 0 for all images, got {self.batch_size}"
            )
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"seed: expected from 0 to {2**32 - 1}, got {self.seed}")
        if self.patience_epochs < 0:
            raise TrainingError(
                f"patience: expected at least 1 epoch, or 0 for never, got {self.patience_epochs}"
            )
        if self.report_every_epochs < 1:
            raise TrainingError(
                f"report every epochs: expected at least 1, got {self.report_every_epochs}"
            )

    def _check_combinations(self) -> None:
        if self.batch_size == 0 and self.warp is not None:
            raise TrainingError("batch size: expected at least 1 with distorted images, got 0")
        if self.dtype != "float32" and self.warp is not None:
            raise TrainingError(
                f"dtype: expected float32 with distorted images, got {self.dtype!r}"
            )
        if self.patience_epochs and not self.validation_share:
            raise TrainingError(
                "patience: expected a validation share above 0, to see when the loss stops falling"
            )

    def _check_shares(self) -> None:
        if not 0 < self.learned_probability <= 1:
            raise TrainingError(
                f"learned probability: expected above 0 to 1, got {self.learned_probability}"
            )
        if not 0 < self.teacher_share <= 1:
            raise TrainingError(f"teacher share: expected above 0 to 1, got {self.teacher_share}")
        if not 1 <= self.teacher_temperature < math.inf:
            raise TrainingError(
                "teacher temperature: expected at least 1 and finite, got "
                f"{self.teacher_temperature}"
            )
        # Written so that a NaN, which compares false, is refused as well.
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise TrainingError(
                f"weight decay: expected at least 0 and finite, got {self.weight_decay}"
            )
        for setting in (
            "label_smoothing",
            "dropout",
            "average_decay",
            "gentle_share",
            "validation_share",
        ):
            value: float = getattr(self, setting)
            if not 0 <= value < 1:
                raise TrainingError(
                    f"{setting.replace('_', ' ')}: expected from 0 to below 1, got {value}"
                )
