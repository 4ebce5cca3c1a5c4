"""Publication: a trained network becomes a version, if it is good enough.

Everything is measured on the network as it will be served: in float32, with its temperature folded
in. The test images only ever judge; no choice is made by them.
"""

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

import numpy as np

from mlpserve.datasets import Split
from mlpserve.model.errors import ModelError
from mlpserve.model.metadata import Calibration, Metadata, Training
from mlpserve.model.network import Network
from mlpserve.model.out_of_distribution import (
    MAX_FITTED_IMAGES,
    MAX_FITTED_VALUES,
    OodDetector,
    fit_detector,
)
from mlpserve.model.references import load_reference, parse_reference
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model, golden_samples
from mlpserve.trainer.calibration import calibrate
from mlpserve.trainer.errors import NotGoodEnoughError
from mlpserve.trainer.evaluation import (
    Evaluation,
    chance_accuracy,
    evaluate,
    is_at_chance,
    scores,
)
from mlpserve.trainer.fitting import Outcome
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.learning.shuffling import OUT_OF_DISTRIBUTION, stream
from mlpserve.trainer.material import Material
from mlpserve.trainer.report import render_report
from mlpserve.trainer.trials import SWEEP_FILE_NAME, Sweep, sweep_document

logger = logging.getLogger(__name__)

REPORT_FILE_NAME: Final = "report.html"
_GOLDEN_IMAGES: Final = 16
_MIN_HELD_OUT: Final = 100  # images, to know what one in a hundred is beyond
_MUCH_BETTER: Final = 0.2  # than on the test images


@dataclass(frozen=True, eq=False)
class Candidate:
    """A version that is complete but for its number.

    Attributes:
        model: The model.
        evaluation: What it says of the test images.
        records: What each epoch of its training found.
        test: The test images.
    """

    model: Model
    evaluation: Evaluation
    records: Sequence[EpochRecord]
    test: Split


def candidate(outcome: Outcome, material: Material, name: str) -> Candidate:
    """Return the version that an outcome makes.

    Args:
        outcome: What the training came to.
        material: What it was made from.
        name: The model's name.

    Raises:
        NotGoodEnoughError: Some parameters are not finite in float32.
    """
    network, test = outcome.network.astype(np.float32), material.dataset.test
    if not all(np.isfinite(array).all() for array in network.parameters):
        raise NotGoodEnoughError(
            "the parameters are not finite in float32, so nothing is published; "
            "try a lower --learning-rate"
        )
    calibration = None
    if material.validation is not None:
        network, calibration = calibrate(
            network, material.spec, validation=material.validation, test=test
        )
    evaluation = evaluate(network, material.spec, test)
    training = _training(network, material, evaluation, calibration)
    training = replace(training, warnings=(*training.warnings, *_doubts(training, evaluation)))
    golden = golden_samples(network, material.spec, test.images[:_GOLDEN_IMAGES])
    metadata = _metadata(network, material, name, training)
    detector = _detector(network, material, evaluation)
    return Candidate(Model(network, metadata, golden, detector), evaluation, outcome.records, test)


def _detector(network: Network, material: Material, evaluation: Evaluation) -> OodDetector | None:
    """Return what scores how little an image looks like those of the data, where there are enough.

    Its threshold is fitted to validation images, or, where there are hardly any, to a fifth of the
    images that it would learn from. The test images only tell how many of them are beyond it.
    """
    spec, train, test = material.spec, material.train, material.dataset.test
    rng = stream(material.recipe.seed, OUT_OF_DISTRIBUTION)
    most = max(1, min(MAX_FITTED_IMAGES, MAX_FITTED_VALUES // spec.values_per_image))
    rows = rng.choice(len(train), min(len(train), most), replace=False)
    held_out = material.validation
    if held_out is None or len(held_out) < _MIN_HELD_OUT:
        rows, others = rows[len(rows) // 5 :], rows[: len(rows) // 5]
        if not len(others):
            return None
        held_out = train.select(np.sort(others))
    elif len(held_out) > most:
        held_out = held_out.select(np.sort(rng.choice(len(held_out), most, replace=False)))
    learned = train.select(np.sort(rows))
    answers = evaluate(network, spec, held_out).probabilities
    held_out_images = np.asarray(held_out.images)
    found = fit_detector(
        np.asarray(learned.images), learned.labels, (held_out_images, answers), spec, rng
    )
    if found is None:
        return None
    beyond = found.scores(test.images, evaluation.probabilities, spec) > found.threshold
    return replace(found, test_share=float(beyond.mean()))


def publish_candidate(
    models: Path,
    candidate: Candidate,
    *,
    with_report: bool,
    is_resumed: bool = False,
    sweep: Sweep | None = None,
) -> Model:
    """Publish a version, and beside it the report; return it as it was published.

    Args:
        models: The models folder.
        candidate: The version.
        with_report: Whether to publish the report.
        is_resumed: Whether its run may have published it already, before it was killed and resumed.
        sweep: The sweep that found its settings, to publish as well.

    Raises:
        ModelError: It cannot be published.
    """
    may_be_published = is_resumed or sweep is not None
    if may_be_published and (published := published_before(models, candidate)) is not None:
        return published

    def attachments(model: Model) -> Mapping[str, bytes]:
        report = _report(model, candidate, sweep) if with_report else {}
        return report | ({} if sweep is None else {SWEEP_FILE_NAME: sweep_document(sweep)})

    return publish(models, candidate.model, attachments=attachments)


def published_before(models: Path, candidate: Candidate) -> Model | None:
    """Return the newest version of a model if it is the candidate itself; None if it is another.

    A run that was killed after it had published, and before it removed its checkpoints, comes to
    the same bits once more when it is resumed.
    """
    metadata = candidate.model.metadata
    try:
        newest = load_reference(parse_reference(metadata.name, models=models))
    except ModelError:
        return None
    found, made = newest.metadata.training, metadata.training
    same_run = (found.recipe, found.hyperparameters, found.seed, found.data_digest) == (
        made.recipe,
        made.hyperparameters,
        made.seed,
        made.data_digest,
    )
    pairs = zip(newest.network.parameters, candidate.model.network.parameters, strict=False)
    return newest if same_run and all(np.array_equal(a, b) for a, b in pairs) else None


def _report(model: Model, candidate: Candidate, sweep: Sweep | None) -> dict[str, bytes]:
    try:
        page = render_report(
            model, candidate.records, candidate.evaluation, candidate.test, sweep=sweep
        )
    except Exception:  # a version without its report is worth more than none
        logger.exception("the report could not be made; the version is published without")
        return {}
    return {REPORT_FILE_NAME: page.encode()}


def _training(
    network: Network, material: Material, evaluation: Evaluation, calibration: Calibration | None
) -> Training:
    spec, recipe, validation = material.spec, material.recipe, material.validation
    return Training(
        recipe=recipe.name,
        hyperparameters=recipe.hyperparameters(),
        seed=recipe.seed,
        data_name=material.dataset.name,
        data_digest=material.digest,
        train_accuracy=scores(network, spec, material.train).accuracy,
        test_accuracy=evaluation.accuracy,
        created_at=datetime.now(UTC),
        library_versions={
            "mlpserve": installed_version("mlpserve"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        validation_accuracy=None
        if validation is None
        else scores(network, spec, validation).accuracy,
        calibration=calibration,
        test_origin=material.dataset.test_origin,
        warnings=material.warnings,
    )


def _doubts(training: Training, evaluation: Evaluation) -> Iterator[str]:
    """Yield what is wrong with a network that has learned nothing."""
    if not is_at_chance(evaluation):
        return
    found = (
        f"the test accuracy is {100 * evaluation.accuracy:.2f} %, no better than always naming the "
        f"most frequent class, which is right in {100 * chance_accuracy(evaluation):.2f} %: "
    )
    if training.train_accuracy > evaluation.accuracy + _MUCH_BETTER:
        yield (
            f"{found}what was learned, {100 * training.train_accuracy:.2f} % of the training "
            "images, is not so of the test images; are both of one kind, and labelled alike?"
        )
    else:
        yield (
            f"{found}nothing was learned; try a lower --learning-rate, wider --layers or more "
            "--epochs, or look at the images and their labels"
        )


def _metadata(network: Network, material: Material, name: str, training: Training) -> Metadata:
    return Metadata(
        name=name,
        version=0,
        layer_sizes=network.layer_sizes,
        activations=network.activations,
        input=material.spec,
        class_labels=material.dataset.class_labels,
        training=training,
    )
