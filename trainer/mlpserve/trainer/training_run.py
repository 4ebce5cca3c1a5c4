"""Run of a training: its steps with their display, and the checkpoints that it can go on from."""

import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Final

from mlpserve.model.network import Network
from mlpserve.model.processors import granted_processors
from mlpserve.trainer.checkpoints import Checkpoints, Identity
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.errors import StoppedError, TrainingError
from mlpserve.trainer.fitting import Fit, Outcome, Snapshot
from mlpserve.trainer.learning.engine import (
    NUMPY,
    Engine,
    default_engine,
    engine_of,
    operations_per_row,
)
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.material import Material
from mlpserve.trainer.progress import Display
from mlpserve.trainer.signals import StopSignals
from mlpserve.trainer.watching import Watch

# A thread that is given less than this in a step is waited for longer than it works: where threads
# share out the rows of a batch, and where they share out the parameters.
_MIN_OPERATIONS_PER_THREAD: Final = 2e8
_MIN_OPERATIONS_TENSOR_PARALLEL: Final = 3e7


class TrainingRun:
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
        images = len(material.train)
        self._engine = engine_of(config.engine or default_engine(recipe, self._network, images))
        self._threads = config.threads or default_threads(
            recipe, self._network, images, self._engine
        )
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
                engine=self._engine,
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
            engine=self._engine.name,
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
            engine=self._engine.name,
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


def default_threads(recipe: Recipe, network: Network, images: int, engine: Engine = NUMPY) -> int:
    """Return how many threads pay: as many as are granted, if a step has work for all."""
    granted = granted_processors()
    operations = operations_per_row(network) * (recipe.batch_size or images)
    by_columns = engine.tensor_parallel
    suits = by_columns is not None and by_columns.suits(recipe, network, granted)
    each = _MIN_OPERATIONS_TENSOR_PARALLEL if suits else _MIN_OPERATIONS_PER_THREAD
    return max(1, min(granted, int(operations / each)))
