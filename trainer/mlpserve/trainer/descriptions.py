"""Descriptions of data and of versions, for the displays of a run."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from mlpserve.datasets import Dataset
from mlpserve.datasets.flags import given_flags
from mlpserve.datasets.source import DATASETS
from mlpserve.model.metadata import Metadata
from mlpserve.model.weights import Model
from mlpserve.trainer.config import DEFAULT_MODELS, JobConfig


@dataclass(frozen=True)
class DataFacts:
    """What is learned from.

    Attributes:
        name: What the data is called.
        train_images: How many images there are to learn from.
        test_images: How many there are to test with.
        test_origin: Where these are from, unless the data has them; "" if it has.
        shape: The shape of an image.
        classes: How many classes there are.
    """

    name: str
    train_images: int
    test_images: int
    test_origin: str
    shape: tuple[int, ...]
    classes: int


def data_facts(dataset: Dataset) -> DataFacts:
    """Return the facts of a data set."""
    return DataFacts(
        name=dataset.name,
        train_images=len(dataset.train),
        test_images=len(dataset.test),
        test_origin=dataset.test_origin,
        shape=dataset.input_shape,
        classes=len(dataset.class_labels),
    )


def describe_data(facts: DataFacts) -> str:
    """Return what is learned from, as a line."""
    shape = " x ".join(map(str, facts.shape))
    origin = f"; test images: {facts.test_origin}" if facts.test_origin else ""
    return (
        f"data {facts.name}: {facts.train_images} training and {facts.test_images} test images "
        f"of {shape}, {facts.classes} classes{origin}"
    )


def describe_version(model: Model, models: Path) -> str:
    """Return what was published, and where, as a line."""
    metadata, training = model.metadata, model.metadata.training
    return (
        f"published {models / metadata.name / str(metadata.version)}: "
        f"{'-'.join(map(str, metadata.layer_sizes))}, trained on {training.data_name}, "
        f"training accuracy {100 * training.train_accuracy:.2f} %, "
        f"test accuracy {100 * training.test_accuracy:.2f} %"
    )


def comparison_command(metadata: Metadata, before: int, config: JobConfig) -> str:
    """Return the command that compares a version to one before it, on the data of its training."""
    versions = [f"{metadata.name}:{version}" for version in (before, metadata.version)]
    flags = ["--data", config.data, *given_flags(config.read_options)]
    if config.models != DEFAULT_MODELS:
        flags += ["--models", str(config.models)]
    if config.data_dir is not None and {"auto", *DATASETS} & set(flags):
        flags += ["--data-dir", str(config.data_dir)]
    return shlex.join(["mlpserve-models", "compare", *versions, *flags])
