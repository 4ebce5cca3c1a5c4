"""One run of the trainer, from the data to the published version.

Order matters: what can fail early is tried early, and nothing is published unless all went well.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from mlpserve.datasets import Dataset, load_dataset
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata, Training, is_model_name
from mlpserve.model.network import Network
from mlpserve.model.versions import prepare, publish, versions
from mlpserve.model.weights import Model
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.evaluation import accuracy
from mlpserve.trainer.learning.training import EpochReport, initial_network, train
from mlpserve.trainer.progress import LINES
from mlpserve.trainer.recipes import Recipe


@dataclass(frozen=True)
class JobConfig:
    """What to train on, how, and where to publish it.

    Attributes:
        data: auto, mnist, drawn, or a path; see ``mlpserve.datasets.load_dataset``.
        data_dir: Where the MNIST files may be.
        models: The models folder.
        name: The model's name; None to call it like its data.
        recipe: How to train.
        unless_published: Whether to do nothing where the model has a version already, so that a
            job that is started each time something else starts trains only once. Needs ``name``.
    """

    data: str
    data_dir: Path | None
    models: Path
    name: str | None
    recipe: Recipe
    unless_published: bool = False


def run(config: JobConfig, print_line: Callable[[str], None]) -> None:
    """Train a network, judge it by the test images and publish it.

    Args:
        config: What to do.
        print_line: Takes each line of progress.

    Raises:
        DatasetError: The data cannot be used.
        TrainingError: The training diverged, or the data's name is no name for a model.
        ModelError: The version cannot be published.
    """
    if config.unless_published and _is_published(config, print_line):
        return
    name = config.name
    if name is not None:
        prepare(config.models, _model_name(name))
    dataset = load_dataset(config.data, data_dir=config.data_dir)
    if name is None:
        name = _model_name(dataset.name)
        prepare(config.models, name)
    print_line(_describe_data(dataset))
    # One thread: on a machine with other work, two BLAS threads wait for each other more than they
    # gain, and with one the same seed gives the same bits.
    # NumPy need not warn of overflows: a loss that is not finite, and weights that could overflow,
    # are found and said in our words.
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
        model = _trained_model(config.recipe, dataset, name, print_line)
    published = publish(config.models, model)
    print_line(_describe_result(published, config.models))


def _is_published(config: JobConfig, print_line: Callable[[str], None]) -> bool:
    if config.name is None:
        raise TrainingError("--unless-published: expected --name, to know which model to look for")
    published = versions(config.models, _model_name(config.name))
    if published:
        print_line(f"nothing to do: {config.models / config.name} has version {published[0]}")
    return bool(published)


def _trained_model(
    recipe: Recipe, dataset: Dataset, name: str, print_line: Callable[[str], None]
) -> Model:
    spec = InputSpec(dataset.input_shape)
    class_count = len(dataset.class_labels)
    inputs = spec.scale(dataset.train.images, recipe.parameter_dtype)
    network = initial_network(recipe, spec.values_per_image, class_count)

    def report(epoch: EpochReport) -> None:
        print_line(LINES[recipe.report_line](epoch, class_count))

    started = time.monotonic()
    network = train(network, inputs, dataset.train.labels, recipe, report)
    print_line(f"trained for {time.monotonic() - started:.1f} s")
    # Judged as it is published and served, whatever it was trained in.
    network = network.astype(np.float32)
    training = Training(
        recipe=recipe.name,
        hyperparameters=recipe.hyperparameters(),
        seed=recipe.seed,
        data_name=dataset.name,
        data_digest=dataset.digest(),
        train_accuracy=accuracy(network, spec, dataset.train),
        test_accuracy=accuracy(network, spec, dataset.test),
        created_at=datetime.now(UTC),
        library_versions=_library_versions(),
    )
    return _model(network, spec, dataset, name, training)


def _model(
    network: Network, spec: InputSpec, dataset: Dataset, name: str, training: Training
) -> Model:
    metadata = Metadata(
        name=name,
        version=0,
        layer_sizes=network.layer_sizes,
        activations=network.activations,
        input=spec,
        class_labels=dataset.class_labels,
        training=training,
    )
    return Model(network, metadata)


def _model_name(name: str) -> str:
    if not is_model_name(name):
        raise TrainingError(
            f"name: expected 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, "
            f"got {name!r}; choose one with --name"
        )
    return name


def _library_versions() -> dict[str, str]:
    return {
        "mlpserve": installed_version("mlpserve"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _describe_data(dataset: Dataset) -> str:
    shape = " x ".join(map(str, dataset.input_shape))
    return (
        f"data {dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images "
        f"of {shape}, {len(dataset.class_labels)} classes"
    )


def _describe_result(model: Model, models: Path) -> str:
    metadata = model.metadata
    return (
        f"published {models / metadata.name / str(metadata.version)}: "
        f"{'-'.join(map(str, metadata.layer_sizes))}, trained on {metadata.training.data_name}, "
        f"training accuracy {100 * metadata.training.train_accuracy:.2f} %, "
        f"test accuracy {100 * metadata.training.test_accuracy:.2f} %"
    )
