"""Workers of a sweep: processes on this machine that run trials.

A trial that takes its process with it, as where memory runs out, is lost alone.
"""

import multiprocessing
import signal
from types import TracebackType
from typing import Final, Self

from mlpserve.trainer.descriptions import DataFacts
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.progress import Display
from mlpserve.trainer.sweep.worker_process import Ended, Job, Message, Told, work
from mlpserve.trainer.trials import TrialState

_ENDS_WITHIN_S: Final = 60.0


class Worker:
    """A worker, as the sweep sees it."""

    def __init__(self) -> None:
        # Not forked: this process may have threads, for a bar on a terminal.
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self._process = context.Process(target=work, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def begin(self, job: Job) -> None:
        """Have a run done; what it tells comes by ``receive``."""
        self.connection.send(job)

    def receive(self) -> Message:
        """Wait for what is told next; the last of a run is an ``Ended``."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return Ended(TrialState.FAILED, _died(self._process.exitcode))
        return message

    @property
    def is_alive(self) -> bool:
        """Return whether it can be given another run."""
        return self._process.is_alive()

    def stop(self) -> None:
        """Have it write a checkpoint and end its run."""
        self._process.terminate()

    def close(self) -> None:
        """End it, between two runs."""
        self.connection.close()
        self._process.join(_ENDS_WITHIN_S)


class WorkerPool:
    """The workers of a sweep; each is started when it is first needed."""

    def __init__(self) -> None:
        self._idle: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._idle:
            worker.close()

    def take(self) -> Worker:
        """Return a worker for one run, which is then given back."""
        return self._idle.pop() if self._idle else Worker()

    def give_back(self, worker: Worker) -> None:
        """Keep a worker for the next run; one that has ended is forgotten."""
        if worker.is_alive:
            self._idle.append(worker)
        else:
            worker.close()

    def run(self, job: Job, display: Display) -> Ended:
        """Do one run, and show what it tells.

        Raises:
            TrainingError: It failed.
        """
        worker = self.take()
        worker.begin(job)
        while not isinstance(message := worker.receive(), Ended):
            if isinstance(message, Told):
                display.event(message.name, message.text, **message.details)
            elif isinstance(message, DataFacts):
                display.data(message)
        self.give_back(worker)
        if message.failure is not None:
            raise TrainingError(message.failure)
        return message


def _died(code: int | None) -> str:
    if code is not None and code < 0:
        return (
            f"its process was killed by {signal.Signals(-code).name}, as the system does where "
            "memory runs out"
        )
    return f"its process ended with exit code {code}"
