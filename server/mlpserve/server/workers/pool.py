"""The crew of a server of several processes: all load the same, and change over at one instant.

Processes load one after another, so that loading slows down one of them at a time, and a version
that kills the process that loads it kills one. Whether it was the version's fault is found out in
the process that is started in the place of the dead one, before that answers any call.
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
from mlpserve.server.models.snapshots import Snapshot
from mlpserve.server.workers.process import Worker, WorkerLostError
from mlpserve.server.workers.shared_generation import SharedGeneration

logger = logging.getLogger(__name__)

# Once may be by chance.
_LOSSES_THAT_CONVICT: Final = 2
_MOST_TRIES: Final = 3
_CONVICTION: Final = "it was tried twice, and each time the process that loaded it was lost: {}"


class _Wanted(NamedTuple):
    """What ``WorkerPool.prepare`` is told."""

    generation: int
    plan: Plan
    snapshots: Mapping[VersionKey, Snapshot]


class ProcessPool:
    """Several worker processes, one in each slot; see ``WorkerPool``. Safe to use from threads.

    Args:
        board: Where the workers read which generation is served.
        start_worker: Starts a worker in a place.
        places: How many there are.

    Attributes:
        deaths: How many workers have died and were replaced.
    """

    def __init__(
        self, board: SharedGeneration, start_worker: Callable[[int], Worker], places: int
    ) -> None:
        self._board = board
        self._start_worker = start_worker
        self._places: Final = range(places)
        # Held while workers are told anything: none is started anew in the middle of a change.
        self._lock = Lock()
        self._workers: list[Worker] = []
        self._served = self._prepared = _Wanted(0, Plan({}), {})
        self._is_open = False
        self._is_stopping = False
        self.deaths = 0

    @property
    def workers(self) -> list[Worker]:
        """Return the workers by their places; waits for nobody."""
        return list(self._workers)

    def has_one_ended_well(self) -> bool:
        """Return whether a worker has ended as if it had been told to stop."""
        return any(worker.has_ended_well for worker in self._workers)

    def begin(self) -> None:
        """Start all workers.

        Raises:
            WorkerLostError: One of them died.
        """
        self._workers = [self._start_worker(place) for place in self._places]
        for worker in self._workers:
            worker.begin()

    def open(self) -> str:
        """Have all workers answer calls; return what answers Predict, in words.

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
    ) -> Mapping[VersionKey, str]:
        """See ``WorkerPool.prepare``. A version that loses its worker twice is a problem."""
        with self._lock:
            self._prepared = _Wanted(generation, plan, snapshots)
            losses: Counter[VersionKey] = Counter()
            for place in self._places:
                if problems := self._prepare_in(place, losses):
                    return problems
            return {}

    def activate(self, generation: int) -> None:
        """See ``WorkerPool.activate``. A worker that lags behind catches up first, or is ended."""
        with self._lock:
            for worker in self._live():
                with self._logging_loss():
                    _catch_up(worker, self._prepared)
            self._board.generation = generation
            self._served = self._prepared
            for worker in self._live():
                with self._logging_loss():
                    worker.follow(generation)

    def replace_ended(self) -> bool:
        """Start others in the places of workers that have ended; return whether all live now."""
        with self._lock:
            for place in self._places:
                with self._logging_loss():
                    self._open(self._worker_in(place))
            return len(self._live()) == len(self._places)

    def _prepare_in(self, place: int, losses: Counter[VersionKey]) -> Mapping[VersionKey, str]:
        """Prepare the worker in a place, or, where it is lost, the one that comes after it."""
        for _ in range(_MOST_TRIES):
            try:
                worker = self._worker_in(place)
                problems = worker.prepare(*self._prepared)
                self._open(worker)
            except WorkerLostError as error:
                suspect = error.loading
                if suspect is None:
                    break  # no version's fault: the next worker in this place catches up
                losses[suspect] += 1
                if losses[suspect] == _LOSSES_THAT_CONVICT:
                    return {suspect: _CONVICTION.format(error.reason)}
            else:
                return problems
        return {}

    def _worker_in(self, place: int) -> Worker:
        """Return the worker in a place, where need be a new one that has loaded what is served."""
        ended = self._workers[place]
        if not ended.has_ended:
            return ended
        reason = ended.how_it_ended()
        self.deaths += 1
        how = "ended by itself" if ended.has_ended_well else "died"
        logger.error("worker %d %s, another is started: %s", ended.process_id, how, reason)
        worker = self._workers[place] = self._start_worker(place)
        worker.begin()
        try:
            _catch_up(worker, self._served)
        except WorkerLostError as error:  # what others serve is not to be blamed
            raise WorkerLostError(error.reason) from error
        return worker

    def _open(self, worker: Worker) -> None:
        if not self._is_open or worker.is_open:
            return
        try:
            worker.open()
        except StartError as error:
            worker.kill(str(error))
            raise WorkerLostError(worker.how_it_ended()) from error

    @contextmanager
    def _logging_loss(self) -> Iterator[None]:
        """Log that a worker was lost; another one is started in its place later."""
        try:
            yield
        except WorkerLostError as error:
            if not self._is_stopping:
                logger.error("a worker is lost: %s", error)  # noqa: TRY400 - it says it all

    def _live(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.has_ended]


def _catch_up(worker: Worker, wanted: _Wanted) -> None:
    """Prepare a worker for what the others have loaded; end it where it cannot."""
    if worker.generation != wanted.generation and (problems := worker.prepare(*wanted)):
        worker.kill(f"it cannot serve what the others serve: {'; '.join(problems.values())}")
        raise WorkerLostError(worker.how_it_ended())
