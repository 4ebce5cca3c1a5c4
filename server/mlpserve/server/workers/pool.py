"""Pool of worker processes: all load the same, and change over to it at one instant.

Processes load one after another, so that loading slows down one of them at a time, and a version
that kills the process that loads it kills one. Whether it was the version's fault is found out in
the process that is started in the slot of the dead one, before that answers any call.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Final, NamedTuple

from mlpserve.model.folder import VersionKey
from mlpserve.server.errors import StartError
from mlpserve.server.models.plan import Plan
from mlpserve.server.models.quarantine import LoadError
from mlpserve.server.models.snapshots import Snapshot
from mlpserve.server.workers.process import WorkerLostError, WorkerProcess
from mlpserve.server.workers.shared_generation import SharedGeneration

logger = logging.getLogger(__name__)

# A version with which so many workers in a row are lost is to blame; once may be by chance.
_MAX_LOSSES: Final = 2
_MAX_TRIES: Final = 3
_LOST_TWICE: Final = "it was tried twice, and each time the process that loaded it was lost: {}"


class _Target(NamedTuple):
    """What workers are to serve; see ``WorkerPool.prepare``."""

    generation: int
    plan: Plan
    snapshots: Mapping[VersionKey, Snapshot]


class ProcessPool:
    """Several worker processes, one in each slot; see ``WorkerPool``. Safe to use from threads.

    Args:
        generation: Where the workers read which generation is served.
        start_worker: Starts a worker in a slot.
        slots: How many there are.

    Attributes:
        deaths: How many workers have died and were replaced.
    """

    def __init__(
        self, generation: SharedGeneration, start_worker: Callable[[int], WorkerProcess], slots: int
    ) -> None:
        self._generation = generation
        self._start_worker = start_worker
        self._slots: Final = range(slots)
        # Held while workers are called: none is started anew in the middle of a change.
        self._lock = Lock()
        self._workers: list[WorkerProcess] = []
        self._served = self._prepared = _Target(0, Plan({}), {})
        self._is_open = False
        self._is_stopping = False
        self.deaths = 0

    @property
    def workers(self) -> list[WorkerProcess]:
        """Return the workers by their slots; waits for nobody."""
        return list(self._workers)

    def has_one_ended_well(self) -> bool:
        """Return whether a worker has ended as if it had been told to stop."""
        return any(worker.has_ended_well for worker in self._workers)

    def begin(self) -> None:
        """Start all workers.

        Raises:
            WorkerLostError: One of them died.
        """
        self._workers = [self._start_worker(slot) for slot in self._slots]
        for worker in self._workers:
            worker.begin()

    def open(self) -> str:
        """Have all workers answer requests; return what answers Predict, in words.

        Raises:
            StartError: One of them cannot listen.
            WorkerLostError: One of them died.
        """
        with self._lock:
            self._is_open = True
            adapter, *_ = [worker.open() for worker in self._workers]
            return adapter

    def stop(self) -> None:
        """Start no worker any more; those that live are told to end by whoever calls this."""
        self._is_stopping = True

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, LoadError]:
        """See ``WorkerPool.prepare``. A version that loses its worker twice has failed."""
        with self._lock:
            self._prepared = _Target(generation, plan, snapshots)
            losses: Counter[VersionKey] = Counter()
            for slot in self._slots:
                if errors := self._prepare_in(slot, losses):
                    return errors
            return {}

    def activate(self, generation: int) -> None:
        """See ``WorkerPool.activate``. A worker that lags behind catches up first, or is ended."""
        with self._lock:
            for worker in self._live():
                with self._logging_loss():
                    _catch_up(worker, self._prepared)
            self._generation.generation = generation
            self._served = self._prepared
            for worker in self._live():
                with self._logging_loss():
                    worker.activate(generation)

    def replace_ended(self) -> bool:
        """Start others in the slots of workers that have ended; return whether all live now."""
        with self._lock:
            for slot in self._slots:
                with self._logging_loss():
                    self._open(self._worker_in(slot))
            return len(self._live()) == len(self._slots)

    def _prepare_in(self, slot: int, losses: Counter[VersionKey]) -> Mapping[VersionKey, LoadError]:
        """Prepare the worker in a slot, or, where it is lost, the one that comes after it."""
        for _ in range(_MAX_TRIES):
            try:
                worker = self._worker_in(slot)
                errors = worker.prepare(*self._prepared)
                self._open(worker)
            except WorkerLostError as error:
                version = error.loading
                if version is None:
                    break  # no version's fault: the next worker in this slot catches up
                losses[version] += 1
                if losses[version] == _MAX_LOSSES:
                    return {version: LoadError(_LOST_TWICE.format(error))}
            else:
                return errors
        return {}

    def _worker_in(self, slot: int) -> WorkerProcess:
        """Return the worker in a slot, where need be a new one that has loaded what is served."""
        ended = self._workers[slot]
        if not ended.has_ended:
            return ended
        reason = ended.how_it_ended()
        self.deaths += 1
        how = "ended by itself" if ended.has_ended_well else "died"
        logger.error("worker %d %s, another is started: %s", ended.process_id, how, reason)
        worker = self._workers[slot] = self._start_worker(slot)
        worker.begin()
        try:
            _catch_up(worker, self._served)
        except WorkerLostError as error:  # what others serve is not to be blamed
            raise WorkerLostError(str(error)) from error
        return worker

    def _open(self, worker: WorkerProcess) -> None:
        if not self._is_open or worker.is_open:
            return
        try:
            worker.open()
        except StartError as error:
            worker.kill(str(error))
            raise WorkerLostError(worker.how_it_ended()) from error

    @contextmanager
    def _logging_loss(self) -> Iterator[None]:
        """Log that a worker was lost; another one is started in its slot later."""
        try:
            yield
        except WorkerLostError as error:
            if not self._is_stopping:
                logger.error("a worker is lost: %s", error)  # noqa: TRY400 - it says it all

    def _live(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if not worker.has_ended]


def _catch_up(worker: WorkerProcess, target: _Target) -> None:
    """Prepare a worker for what the others have loaded; end it where it cannot."""
    if worker.generation != target.generation and (errors := worker.prepare(*target)):
        reasons = "; ".join(error.reason for error in errors.values())
        worker.kill(f"it cannot serve what the others serve: {reasons}")
        raise WorkerLostError(worker.how_it_ended())
