"""Teachers: published versions from which a training learns; see ``distillation``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mlpserve.datasets import Dataset
from mlpserve.model.errors import ModelError
from mlpserve.model.inputs import InputSpec
from mlpserve.model.references import load_reference, parse_reference
from mlpserve.model.weights import Model
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.recipe import Recipe

_MAX_SHOWN: Final = 200


def load_teachers(models: Path, references: Sequence[str]) -> list[Model]:
    """Load the versions of the models folder that ``--teacher`` names.

    Raises:
        TrainingError: There is none of such a name, or its file cannot be used.
    """
    try:
        return [load_reference(parse_reference(text, models=models)) for text in references]
    except ModelError as error:
        raise TrainingError(f"--teacher: {error}") from error


def version_name(model: Model) -> str:
    """Return ``NAME:VERSION``, which means the same whatever is published later."""
    return f"{model.metadata.name}:{model.metadata.version}"


def check_teacher(teacher: Model, dataset: Dataset, spec: InputSpec) -> None:
    """Refuse a teacher that takes other images, or tells other classes apart.

    Raises:
        TrainingError: It does.
    """
    metadata = teacher.metadata
    for field, expected, got in (
        ("images of shape", spec.shape, metadata.input.shape),
        ("values of range", spec.value_range, metadata.input.value_range),
        ("classes", dataset.class_labels, metadata.class_labels),
    ):
        if expected != got:
            raise TrainingError(
                f"--teacher: {version_name(teacher)}: expected {field} {_shown(expected)}, as the "
                f"data has, got {_shown(got)}; name a version that was trained on such data"
            )


def saw_validation(teacher: Model, recipe: Recipe, data_digest: str) -> bool:
    """Return whether a teacher learned from images that are held out of this training.

    The seed and the share of the same data say which these are.
    """
    training = teacher.metadata.training
    if not recipe.validation_share or training.data_digest != data_digest:
        return False
    share = training.hyperparameters.get("validation_share")
    return (training.seed, share) != (recipe.seed, recipe.validation_share)


def _shown(value: object) -> str:
    text = "bytes or shares" if value is None else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
