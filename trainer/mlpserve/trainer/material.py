"""Material of a training: the data, what is taken of it, how it is read, and who teaches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlpserve.datasets import Dataset, DatasetError, Split, load_dataset
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.model.weights import Model
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.descriptions import data_facts
from mlpserve.trainer.fitting import hold_out
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.progress import Display
from mlpserve.trainer.teachers import (
    check_teacher,
    load_teachers,
    saw_validation,
    version_name,
)
from mlpserve.trainer.value_ranges import find_range


@dataclass(frozen=True, eq=False)
class Material:
    """The data and the recipe that a network was made from.

    Attributes:
        dataset: All images.
        digest: The digest of the data set.
        train: Those of its training images that were learned from.
        validation: Those that were not; None if all were.
        recipe: How they were learned from; its teachers by their versions' numbers.
        spec: What a network for these images takes.
        warnings: What looks like a mistake in them.
        teachers: The networks of the recipe's teachers.
    """

    dataset: Dataset
    digest: str
    train: Split
    validation: Split | None
    recipe: Recipe
    spec: InputSpec
    warnings: tuple[str, ...] = ()
    teachers: Sequence[Network] = ()


def load_material(config: JobConfig, display: Display) -> Material:
    """Return the data and the recipe of a run, and show what they are.

    Raises:
        DatasetError: The data cannot be used.
        TrainingError: There is too little of it to validate with, or a teacher cannot be used.
    """
    teachers = load_teachers(config.models, config.recipe.teachers)
    # By number: a label, or the newest, may be another version when this run is resumed.
    recipe = replace(config.recipe, teachers=tuple(map(version_name, teachers)))
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
    train, validation = hold_out(dataset.train, recipe)
    _check_classes(dataset, train)
    spec = InputSpec(dataset.input_shape, value_range=found.value_range)
    material = Material(
        dataset,
        dataset.digest(),
        train,
        validation,
        recipe,
        spec,
        found.warnings,
        [teacher.network for teacher in teachers],
    )
    for teacher in teachers:
        _check_teacher(teacher, material, display)
    return material


def _check_teacher(teacher: Model, material: Material, display: Display) -> None:
    """Refuse a teacher for other data; warn of one that makes the validation look too good.

    Raises:
        TrainingError: It is for other data.
    """
    check_teacher(teacher, material.dataset, material.spec)
    if saw_validation(teacher, material.recipe, material.digest):
        display.warn(
            f"--teacher: {version_name(teacher)} learned from images that are held out here, so "
            "that the validation may look too good; train it with the same --seed and "
            "--validation-share"
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
