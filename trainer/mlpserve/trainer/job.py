"""Training job: one run of the trainer, from the data to the published version.

Order matters: what can fail early is tried early, and nothing is published unless all went well.
"""

from contextlib import closing

import numpy as np
from threadpoolctl import threadpool_limits

from mlpserve.datasets.progress import shown_by
from mlpserve.model.versions import prepare
from mlpserve.model.weights import Model
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.learning.engine import engine_of
from mlpserve.trainer.material import Material, load_material
from mlpserve.trainer.progress import Display
from mlpserve.trainer.publication import candidate, publish_candidate
from mlpserve.trainer.publishing_events import (
    is_published,
    model_name,
    show_kept,
    show_published,
)
from mlpserve.trainer.signals import StopSignals
from mlpserve.trainer.threshold import (
    Threshold,
    check_good_enough,
    load_baseline,
    measured_baseline,
)
from mlpserve.trainer.training_run import TrainingRun
from mlpserve.trainer.trials import Sweep


def run(
    config: JobConfig,
    display: Display,
    signals: StopSignals,
    *,
    material: Material | None = None,
    sweep: Sweep | None = None,
) -> Model | None:
    """Train a network, evaluate it on the test images and publish it.

    Args:
        config: What to do.
        display: Shows how it goes.
        signals: Tell whether to stop; asked before each step, where there are checkpoints.
        material: The data and the recipe, if they are loaded already.
        sweep: The sweep that found the settings, if one did.

    Returns:
        What was published; None if nothing was to be.

    Raises:
        DatasetError: The data cannot be used.
        TrainingError: The training diverged, a checkpoint cannot be used, the network is not good
            enough, what to compare it to cannot be used, or the data's name is no name for a model.
        ModelError: The version cannot be published.
        StoppedError: A stop, or a pause, was wanted; a checkpoint was written first.
    """
    with shown_by(display.work):
        if config.engine is not None:
            engine_of(config.engine)  # what cannot be had is said before any work
        if config.unless_published and is_published(config, display):
            return None
        if config.name is not None and config.publishes:
            prepare(config.models, model_name(config.name))
        baseline = (
            None if config.compare_to is None else load_baseline(config.models, config.compare_to)
        )
        material = material or load_material(config, display)
        # NumPy need not warn of overflows: a loss that is not finite, and weights that could
        # overflow, are found and said in our words. Of BLAS one thread: more wait for each other on
        # a busy machine, and the pool's threads each call it.
        with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
            published = _train_and_publish(
                config, display, signals, material, baseline=baseline, sweep=sweep
            )
        if published is not None:
            show_published(published, config, display)
        return published


def _train_and_publish(
    config: JobConfig,
    display: Display,
    signals: StopSignals,
    material: Material,
    *,
    baseline: Model | None,
    sweep: Sweep | None,
) -> Model | None:
    name = config.name
    if name is None:
        name = model_name(material.dataset.name)
        if config.publishes:
            prepare(config.models, name)
    threshold = Threshold(
        config.min_accuracy,
        None if baseline is None else measured_baseline(baseline, material.dataset.test),
    )
    with closing(TrainingRun(config, material, display, signals)) as training:
        outcome = training.train()
        if not config.publishes:
            show_kept(config, display)
            return None
        version = candidate(outcome, material, name)
        for warning in version.model.metadata.training.warnings[len(material.warnings) :]:
            display.warn(warning)
        check_good_enough(version.evaluation.accuracy, threshold)
        published = publish_candidate(
            config.models,
            version,
            with_report=config.with_report,
            is_resumed=training.is_resumed,
            sweep=sweep,
        )
        training.end()
    return published
