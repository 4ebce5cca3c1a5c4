"""Training job: one run of the trainer, from the data to the published version.

Order matters: what can fail early is tried early, and nothing is published unless all went well.
"""

import time
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from mlpserve.datasets.progress import shown_by
from mlpserve.model.network import Network
from mlpserve.model.processors import granted_processors
from mlpserve.model.versions import prepare
from mlpserve.model.weights import Model
from mlpserve.trainer.checkpoints import Checkpoints, Identity
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.errors import StoppedError, TrainingError
from mlpserve.trainer.fitting import Fit, Outcome, Snapshot
from mlpserve.trainer.learning.engine import default_engine, engine_of, operations_per_row
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.material import Material, load_material
from mlpserve.trainer.progress import Display
from mlpserve.trainer.publication import (
    Threshold,
    candidate,
    check_good_enough,
    load_baseline,
    measured_baseline,
    publish_candidate,
)
from mlpserve.trainer.publishing_events import (
    is_published,
    model_name,
    show_kept,
    show_published,
)
from mlpserve.trainer.signals import StopSignals
from mlpserve.trainer.trials import Sweep
from mlpserve.trainer.watching import Watch

# A thread that is given less than this in a step is waited for longer than it works.
_MIN_OPERATIONS_PER_THREAD: Final = 2e8


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
        return _run(config, display, signals, material, sweep)


def _run(
    config: JobConfig,
    display: Display,
    signals: StopSignals,
    material: Material | None,
    sweep: Sweep | None,
) -> Model | None:
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
    name = config.name
    if name is None:
        name = model_name(material.dataset.name)
        if config.publishes:
            prepare(config.models, name)
    # NumPy need not warn of overflows: a loss that is not finite, and weights that could overflow,
    # are found and said in our words. Of BLAS one thread: more wait for each other on a busy
    # machine, and the pool's threads each call it.
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
        threshold = Threshold(
            config.min_accuracy,
            None if baseline is None else measured_baseline(baseline, material.dataset.test),
        )
        with closing(_Run(config, material, display, signals)) as training:
            outcome = training.train()
            if not config.publishes:
                show_kept(config, display)
                return None
            version = candidate(outcome, material, name)
            for warning in version.model.metadata.training.warnings[len(material.warnings) :]:
                display.warn(warning)
            check_good_enough(version, threshold)
            published = publish_candidate(
                config.models,
                version,
                with_report=config.with_report,
                is_resumed=training.is_resumed,
                sweep=sweep,
            )
            training.end()
    show_published(published, config, display)
    return published


def default_threads(recipe: Recipe, network: Network, images: int) -> int:
    """Return how many threads pay: as many as are granted, if a step has work for all."""
    operations = operations_per_row(network) * (recipe.batch_size or images)
    return max(1, min(granted_processors(), int(operations / _MIN_OPERATIONS_PER_THREAD)))


class _Run:
    """A training with its checkpoints and its display."""

    def __init__(
        self,
        config: JobConfig,
        material: Material,
        display: Display,
        signals: StopSignals,
    ) -> None:
        recipe = material.recipe
        self._config = config
        self._material = material
        self._display = display
        self._signals = signals
        self._network = initial_network(
            recipe, material.spec.values_per_image, len(material.dataset.class_labels)
        )
        self._threads = config.threads or default_threads(
            recipe, self._network, len(material.train)
        )
        self._engine = config.engine or default_engine(recipe, self._network, len(material.train))
        self._checkpoints = self._prepared_checkpoints(config.checkpoint_folder)
        self._save_due_s = time.monotonic() + config.checkpoint_every_s
        self.is_resumed = False

    def train(self) -> Outcome:
        """Train from the beginning, or from where the last checkpoint was written."""
        recipe, material = self._material.recipe, self._material
        # Read before the threads start: a checkpoint of another run is refused at once.
        snapshot = self._found_snapshot()
        # Without checkpoints there is nothing to save, so nothing to wait for.
        noting = self._signals.noted_only() if self._checkpoints else nullcontext()
        with ThreadPool(self._threads) as pool, noting:
            training = Training(
                recipe,
                self._network,
                material.train,
                material.spec,
                pool=pool,
                teachers=material.teachers,
                engine=engine_of(self._engine),
            )
            fit = Fit(
                training,
                recipe,
                validation=material.validation,
                spec=material.spec,
                clock=time.monotonic,
                time_limit_s=self._config.time_limit_s,
            )
            fit.start(snapshot)
            self.is_resumed = snapshot is not None
            outcome = self._run(fit, training)
        self._show_trained(outcome, training)
        return outcome

    def end(self) -> None:
        """Remove the checkpoints: what they were kept for is done."""
        if self._checkpoints is not None:
            self._checkpoints.remove()

    def close(self) -> None:
        """Leave the folder of the checkpoints to others."""
        if self._checkpoints is not None:
            self._checkpoints.release()

    def _run(self, fit: Fit, training: Training) -> Outcome:
        """Run a fit to its end, showing each step and writing the checkpoints that are due.

        Raises:
            StoppedError: A stop, or a pause, was wanted; a checkpoint was written first.
        """
        steps, steps_done = training.steps, training.position.steps
        watch = Watch(
            training,
            self._material.train,
            validation=self._material.validation,
            spec=self._material.spec,
            class_labels=self._material.dataset.class_labels,
            every_s=self._config.progress_every_s,
            clock=time.monotonic,
        )
        try:
            self._display.begin(self._material.recipe, steps=steps, steps_done=steps_done)
            while (reason := fit.end_reason()) is None:
                if self._is_stop_wanted(fit):
                    self._show_progress(watch, is_last=True)
                    self._save(fit)
                    raise StoppedError("stopped; the same with --resume goes on")
                record = fit.step()
                self._display.step(training.position, steps)
                # The last step is worth one of its own: large networks take long to evaluate.
                is_last = training.position.steps == steps
                if is_last or time.monotonic() >= self._save_due_s:
                    self._save(fit)
                # After the checkpoint: whoever is told of the last epoch may end this process.
                if record is not None:
                    self._display.epoch(record)
                self._show_progress(watch, is_last=False)
            self._show_progress(watch, is_last=True)
            if not self._config.publishes:
                self._save(fit)
        finally:
            self._display.end()
        return fit.outcome(reason)

    def _is_stop_wanted(self, fit: Fit) -> bool:
        pause = self._config.pause_after_epochs
        return self._signals.is_stop_wanted or (pause is not None and fit.epochs >= pause)

    def _show_progress(self, watch: Watch, *, is_last: bool) -> None:
        if (progress := watch.look(is_last=is_last)) is not None:
            self._display.progress(progress)

    def _save(self, fit: Fit) -> None:
        """Write a checkpoint, where there are any."""
        if self._checkpoints is not None:
            self._checkpoints.save(fit.snapshot())
        self._save_due_s = time.monotonic() + self._config.checkpoint_every_s

    def _prepared_checkpoints(self, folder: Path | None) -> Checkpoints | None:
        if folder is None:
            return None
        identity = Identity(
            recipe=self._material.recipe.settings(),
            data_digest=self._material.digest,
            layer_sizes=self._network.layer_sizes,
            threads=self._threads,
            engine=self._engine,
            value_range=None if (found := self._material.spec.value_range) is None else str(found),
        )
        checkpoints = Checkpoints(folder, identity)
        checkpoints.prepare()
        return checkpoints

    def _show_trained(self, outcome: Outcome, training: Training) -> None:
        epochs = training.position.steps * self._material.recipe.epochs / training.steps
        images_per_s = epochs * len(self._material.train) / max(outcome.elapsed_s, 1e-9)
        self._display.event(
            "trained",
            f"trained for {outcome.elapsed_s:.1f} s, {images_per_s:,.0f} images/s: "
            f"{outcome.ended_because}",
            elapsed_s=outcome.elapsed_s,
            images_per_s=images_per_s,
            ended_because=outcome.ended_because,
            threads=self._threads,
            engine=self._engine,
        )

    def _found_snapshot(self) -> Snapshot | None:
        if self._checkpoints is None:
            return None
        found = self._checkpoints.newest()
        if found is None:
            return None
        path, snapshot = found
        if not self._config.resume:
            raise TrainingError(
                f"{path}: a run that is not finished left it; go on with --resume, or remove it"
            )
        steps = snapshot.state.position.steps
        self._display.event(
            "resumed",
            f"resumed from {path}, after {steps} steps",
            checkpoint=path,
            steps=steps,
            epochs=[asdict(record) for record in snapshot.state.records],
        )
        return snapshot
