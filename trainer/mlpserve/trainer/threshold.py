"""Threshold of a publication: the quality that a version must have, alone or beside another."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlpserve.datasets import DatasetError, Split
from mlpserve.model.errors import ModelError
from mlpserve.model.references import load_reference, parse_reference
from mlpserve.model.weights import Model
from mlpserve.trainer.errors import NotGoodEnoughError, TrainingError
from mlpserve.trainer.evaluation import evaluate


@dataclass(frozen=True)
class Baseline:
    """A published version that the new one must not be worse than.

    Attributes:
        name: The model's name.
        version: The version's number.
        accuracy: The share of the test images that it classifies rightly, 0 to 1.
    """

    name: str
    version: int
    accuracy: float


@dataclass(frozen=True)
class Threshold:
    """The quality that a version must have to be published.

    Attributes:
        accuracy: The share of the test images that it must classify rightly, 0 to 1; None for any.
        baseline: What it must be as good as; None for nothing.
    """

    accuracy: float | None
    baseline: Baseline | None


def load_baseline(models: Path, text: str) -> Model:
    """Return the version of the models folder that ``--compare-to`` names.

    Raises:
        TrainingError: There is none of that name, or its file cannot be used.
    """
    with _comparing():
        return load_reference(parse_reference(text, models=models))


def measured_baseline(model: Model, test: Split) -> Baseline:
    """Return how good a published version is on the test images.

    Raises:
        TrainingError: It takes other images, or knows fewer classes.
    """
    with _comparing():
        evaluation = evaluate(model.network, model.metadata.input, test)
    return Baseline(model.metadata.name, model.metadata.version, evaluation.accuracy)


def check_good_enough(reached: float, threshold: Threshold) -> None:
    """Refuse a version that is worse than what was asked for.

    Args:
        reached: The share of the test images that it classifies rightly, 0 to 1.
        threshold: What was asked for.

    Raises:
        NotGoodEnoughError: It is worse.
    """
    baseline = threshold.baseline
    if threshold.accuracy is not None and reached < threshold.accuracy:
        raise NotGoodEnoughError(
            f"not published: the test accuracy is {100 * reached:.2f} %, and --min-accuracy asks "
            f"for {100 * threshold.accuracy:g} %"
        )
    if baseline is not None and reached < baseline.accuracy:
        raise NotGoodEnoughError(
            f"not published: the test accuracy is {100 * reached:.2f} %, and version "
            f"{baseline.version} of {baseline.name!r} has {100 * baseline.accuracy:.2f} % on the "
            "same images"
        )


@contextmanager
def _comparing() -> Iterator[None]:
    try:
        yield
    except (DatasetError, ModelError) as error:
        raise TrainingError(f"--compare-to: {error}") from error
