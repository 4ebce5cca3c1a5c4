"""The parent of a server's processes: starts them, replaces those that die, stops them.

Imports neither NumPy nor gRPC: a process in which gRPC has begun cannot be the parent of one that
uses it.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, Any, Final

from mlpserve.server import signals
from mlpserve.server.config import ServerConfig, blas_environment
from mlpserve.server.errors import StartError
from mlpserve.server.ports import SharedPort
from mlpserve.server.worker import settings_line

logger = logging.getLogger(__name__)

_COMMAND: Final = (sys.executable, "-P", "-m", "mlpserve.server.worker")
# A worker that dies sooner than this is not replaced before, so that none dies in a busy loop.
_SHORTEST_LIFE_S: Final = 1.0
_AFTER_GRACE_S: Final = 1.0


class Worker:
    """A process of the server.

    Args:
        config: How it is to serve.
        processor: The only one that it may use; None for any.
        logs_its_start: Whether it logs what happens while it starts.
    """

    def __init__(
        self, config: ServerConfig, *, processor: int | None, logs_its_start: bool
    ) -> None:
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **blas_environment(config.threads)},
        )
        line = settings_line(config, processor=processor, logs_its_start=logs_its_start)
        _pipe(self._process.stdin).write(line)
        _pipe(self._process.stdin).flush()

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; None while the worker lives."""
        return self._process.poll()

    def why_it_ended(self) -> str:
        """Return why a worker that has ended did."""
        for line in _pipe(self._process.stdout):
            if (problem := json.loads(line)["problem"]) is not None:
                return str(problem)
        return f"exit code {self.exit_code}"

    @property
    def process_id(self) -> int:
        """Return the process's id."""
        return self._process.pid

    @property
    def is_young(self) -> bool:
        """Return whether the worker was started so recently that it is too early for another."""
        return time.monotonic() - self._started_s < _SHORTEST_LIFE_S

    def wait_until_ready(self) -> Mapping[str, Any]:
        """Return what the worker says when it is ready.

        Raises:
            StartError: It says that it cannot serve, or died.
        """
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise StartError(f"a worker died while it started (exit code {self._process.wait()})")
        answer: Mapping[str, Any] = json.loads(line)
        if answer["problem"] is not None:
            raise StartError(answer["problem"])
        return answer

    def tell_to_stop(self) -> None:
        """Tell the worker to answer what it has accepted, and to end."""
        self._process.terminate()

    def wait_until_ended(self, timeout_s: float) -> None:
        """Wait for the end, and bring it about where it does not come in time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._process:  # closes the pipes, and takes the exit code
            pass


class Supervisor:
    """Several processes that serve on one port.

    Args:
        config: How each is to serve.

    Raises:
        StartError: The port is taken.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._port = SharedPort(config.host, config.port)
        self._config = replace(config, port=self._port.port, shares_port=True)
        self._processors = _own_processors(config)
        self._workers: list[Worker] = []

    def start(self) -> tuple[Mapping[str, Any], int]:
        """Start all workers; return what the first one says, and the port.

        Raises:
            StartError: One of them cannot serve.
        """
        self._workers = [
            Worker(self._config, processor=processor, logs_its_start=number == 0)
            for number, processor in enumerate(self._processors)
        ]
        try:
            said = [worker.wait_until_ready() for worker in self._workers]
        except StartError:
            self.stop()
            raise
        return said[0], self._port.port

    def wait_for_stop(self) -> None:
        """Replace workers that die, until a signal says to stop; ``signals.block`` was called."""
        waited_for = {*signals.STOP_SIGNALS, signal.SIGCHLD}
        received = signal.SIGCHLD.value
        while received == signal.SIGCHLD:
            if self._replace_dead():
                received = signal.sigwait(waited_for)
            elif (information := signal.sigtimedwait(waited_for, _SHORTEST_LIFE_S)) is not None:
                received = information.si_signo
        signals.let_the_next_one_end_us()

    def stop(self) -> None:
        """Have all workers answer what they have accepted, and end."""
        for worker in self._workers:
            worker.tell_to_stop()
        deadline_s = time.monotonic() + self._config.stop_grace_s + _AFTER_GRACE_S
        for worker in self._workers:
            worker.wait_until_ended(max(0.0, deadline_s - time.monotonic()))
        self._port.close()

    def _replace_dead(self) -> bool:
        """Replace the workers that have died; return whether none is left to be replaced."""
        all_live = True
        for number, worker in enumerate(self._workers):
            if worker.exit_code is None:
                continue
            if worker.is_young:
                all_live = False
                continue
            reason = worker.why_it_ended()
            logger.error("worker %d died, another is started: %s", worker.process_id, reason)
            self._workers[number] = Worker(
                self._config, processor=self._processors[number], logs_its_start=True
            )
            worker.wait_until_ended(0)
        return all_live


def _own_processors(config: ServerConfig) -> list[int | None]:
    """Return which processor each worker keeps to; None where it is left to the system.

    A worker's threads hand each call to one another, which is cheapest on one processor. But only
    where each worker can have one and no processor is left over: otherwise a worker might have to
    share one with another program while others idle.
    """
    if config.pin and config.threads == 1 and hasattr(os, "sched_getaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) == config.workers:
            return list(usable)
    return [None] * config.workers


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # noqa: S101 - it was asked for
    return stream
