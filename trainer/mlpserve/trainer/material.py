"""Material of a training: the data, what is taken of it, and how it is read."""

from dataclasses import dataclass

from mlpserve.datasets import Dataset, DatasetError, Split, load_dataset
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.descriptions import data_facts
from mlpserve.trainer.fitting import hold_out
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.progress import Display
from mlpserve.trainer.value_ranges import find_range


@dataclass(frozen=True, eq=False)
class Material:
    """The data and the recipe that a network was made from.

    Attributes:
        dataset: All images.
        digest: The digest of the data set.
        train: Those of its training images that were learned from.
        validation: Those that were not; None if all were.
        recipe: How they were learned from.
        spec: What a network for these images takes.
        warnings: What looks like a mistake in them.
    """

    dataset: Dataset
    digest: str
    train: Split
    validation: Split | None
    recipe: Recipe
    spec: InputSpec
    warnings: tuple[str, ...] = ()


def load_material(config: JobConfig, display: Display) -> Material:
    """Return the data and the recipe of a run, and show what they are.

    Raises:
        DatasetError: The data cannot be used.
        TrainingError: There is too little of it to validate with.
    """
    dataset = load_dataset(config.data, data_dir=config.data_dir, options=config.read_options)
    display.data(data_facts(dataset))
    found = find_range(dataset, config.value_range)
    display.event(
        "values",
        found.text,
        range=None
        if found.value_range is None
        else [found.value_range.low, found.value_range.high],
    )
    for warning in found.warnings:
        display.warn(warning)
    train, validation = hold_out(dataset.train, config.recipe)
    _check_classes(dataset, train)
    return Material(
        dataset,
        dataset.digest(),
        train,
        validation,
        config.recipe,
        InputSpec(dataset.input_shape, value_range=found.value_range),
        found.warnings,
    )


def _check_classes(dataset: Dataset, train: Split) -> None:
    """Refuse data in which there is nothing to tell apart.

    Raises:
        DatasetError: All images are of one class.
    """
    first = int(train.labels[0])
    if (train.labels == first).all():
        raise DatasetError(
            f"labels: all {len(train)} images to learn from are of one class, "
            f"{dataset.class_labels[first]!r}, so there is nothing to learn; expected two classes "
            "at least"
        )
