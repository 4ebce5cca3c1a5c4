"""Runner of a sweep on one machine: as many trials at once as there are processors for."""

from dataclasses import replace
from multiprocessing.connection import wait
from typing import Final

from mlpserve.trainer.errors import StoppedError
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.signals import StopSignals
from mlpserve.trainer.sweep.plan import Plan
from mlpserve.trainer.sweep.schedule import Step, next_step
from mlpserve.trainer.sweep.state import SweepFolder
from mlpserve.trainer.sweep.tracker import Tracker
from mlpserve.trainer.sweep.worker_process import Ended, Job
from mlpserve.trainer.sweep.workers import Worker, WorkerPool

_ASK_EVERY_S: Final = 0.2  # whether a signal came


class LocalRunner:
    """Trains the trials of a sweep in the processes of a pool."""

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        tracker: Tracker,
        pool: WorkerPool,
        signals: StopSignals,
    ) -> None:
        """Prepare to train.

        Args:
            plan: The trials.
            folder: Where their checkpoints go.
            tracker: Takes what comes of them.
            pool: What they are trained by.
            signals: Tell whether to stop.
        """
        self._plan = plan
        self._folder = folder
        self._tracker = tracker
        self._pool = pool
        self._signals = signals
        self._busy: dict[Worker, int] = {}

    def run(self) -> None:
        """Train until nothing is left to do.

        Raises:
            StoppedError: A stop was wanted; the trials that were at work have written checkpoints.
            TrainingError: The state of the sweep cannot be written.
        """
        is_stopping = False
        try:
            while not is_stopping and self._begin_steps():
                self._take_messages()
                is_stopping = self._signals.is_stop_wanted
        finally:
            self._stop()
        if is_stopping:
            raise StoppedError("stopped; the same command goes on")

    def _begin_steps(self) -> bool:
        """Give work to as many workers as may have some; return whether any has."""
        while len(self._busy) < self._plan.parallel_here:
            step = next_step(self._tracker.sweep, self._busy.values())
            if step is None:
                break
            worker = self._pool.take()
            worker.begin(self._job(step))
            self._busy[worker] = step.trial
        return bool(self._busy)

    def _job(self, step: Step) -> Job:
        config = self._plan.configs[step.trial - 1]
        return Job(
            replace(
                config,
                checkpoint_folder=self._folder.trial_folder(step.trial),
                pause_after_epochs=step.epochs,
            )
        )

    def _take_messages(self) -> None:
        ready = wait([worker.connection for worker in self._busy], _ASK_EVERY_S)
        for worker in [worker for worker in self._busy if worker.connection in ready]:
            self._take(worker)

    def _take(self, worker: Worker) -> None:
        number = self._busy[worker]
        message = worker.receive()
        if isinstance(message, EpochRecord):
            self._tracker.epoch(number, message)
        elif isinstance(message, tuple):
            self._tracker.resumed(number, message)
        elif isinstance(message, Ended):
            del self._busy[worker]
            self._pool.give_back(worker)
            self._tracker.ran(number, message.state, message.failure)

    def _stop(self) -> None:
        """Have the trials that are at work write their checkpoints, and wait for them."""
        for worker in self._busy:
            worker.stop()
        while self._busy:
            self._take_messages()
