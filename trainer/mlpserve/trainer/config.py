"""Configuration of one run of the trainer; read from the flags in ``arguments``."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlpserve.datasets.raw import NO_OPTIONS, ReadOptions
from mlpserve.model.inputs import ValueRange
from mlpserve.trainer.learning.recipe import Recipe

DEFAULT_MODELS: Final = Path("models")


@dataclass(frozen=True)
class JobConfig:
    """The settings of a run: what to train on, how, and where to publish it.

    Attributes:
        data: auto, mnist, drawn, or a path; see ``mlpserve.datasets.load_dataset``.
        data_dir: Where the MNIST files may be.
        models: The models folder.
        name: The model's name; None to call it like its data.
        recipe: How to train.
        unless_published: Whether to do nothing where the model has a version already, so that a
            job that is started each time something else starts trains only once. Needs ``name``.
        threads: How many threads train; None for as many as pay.
        engine: By what to compute, one of ``engine.ENGINE_NAMES``; None for the faster one.
        checkpoint_folder: Where checkpoints go; None for no checkpoints.
        checkpoint_every_s: How many seconds lie between two of them at least.
        resume: Whether to go on from a checkpoint, where there is one.
        pause_after_epochs: After how many epochs to write a checkpoint and stop, to go on later;
            None to run to the end. Needs ``checkpoint_folder``.
        time_limit_s: After how many seconds of training to end with what was learned by then.
        min_accuracy: The share of the test images that must be classified rightly, 0 to 1, or
            nothing is published; None for no such limit.
        compare_to: ``NAME[:VERSION]`` of a version in ``models`` that must not be better on the
            test images, or nothing is published; None for none.
        publishes: Whether to publish; if not, the last checkpoint is kept, which needs a folder.
        progress_every_s: How many seconds lie at least between two looks at the network;
            infinity for no looks.
        with_report: Whether to publish the report beside the weights.
        read_options: What else is said about the data.
        value_range: The range of the data's values; None to find it.
    """

    data: str
    data_dir: Path | None
    models: Path
    name: str | None
    recipe: Recipe
    unless_published: bool = False
    threads: int | None = None
    engine: str | None = None
    checkpoint_folder: Path | None = None
    checkpoint_every_s: float = 30.0
    resume: bool = False
    pause_after_epochs: int | None = None
    time_limit_s: float = math.inf
    min_accuracy: float | None = None
    compare_to: str | None = None
    publishes: bool = True
    progress_every_s: float = math.inf
    with_report: bool = True
    read_options: ReadOptions = NO_OPTIONS
    value_range: ValueRange | None = None
