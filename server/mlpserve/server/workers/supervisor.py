"""Supervisor of the worker processes: starts them, replaces those that die, and stops them.

It also decides what is served, so that all processes serve the same. Imports neither NumPy nor
gRPC: a process in which gRPC has begun cannot be the parent of one that uses it.
"""

import logging
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count
from threading import Event, Lock, Thread
from typing import Final

from mlpserve.server.errors import StartError
from mlpserve.server.models.lifecycle import Lifecycle
from mlpserve.server.settings.config import NO_PORT, ServerConfig
from mlpserve.server.system.ports import SharedPort
from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.process import process_snapshot
from mlpserve.server.telemetry.snapshots import Aggregate, MetricsSnapshot, merged
from mlpserve.server.workers.heartbeat import HeartbeatMonitor
from mlpserve.server.workers.pool import ProcessPool
from mlpserve.server.workers.process import WORKER_COMMAND, WorkerLostError, WorkerProcess
from mlpserve.server.workers.processors import LENDING_PERIOD_S, ProcessorLender, own_processors
from mlpserve.server.workers.rpc import Handler
from mlpserve.server.workers.shared_generation import SharedGeneration

logger = logging.getLogger(__name__)

# After some were replaced, others are not before this, so that none die in a busy loop; and where
# they cannot be replaced, it is tried less and less often.
_MIN_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 16.0
# A signal to all processes of a group or a container reaches us too, but perhaps as the last.
_TOGETHER_S: Final = 1.0
_MAX_MISSED_HEARTBEATS: Final = 10
_HANGS: Final = "it gave no heartbeat for {:g} s, and was killed"
_AFTER_GRACE_S: Final = 1.0


class Supervisor:
    """Several processes that serve on one port.

    Args:
        config: How each is to serve.
        command: Runs a worker; see ``WorkerProcess``.

    Raises:
        StartError: A port is taken, or the models folder is no folder.

    Attributes:
        port: The port that is really used.
        http_port: That for HTTP; None where there is none.
        lifecycle: Decides what is served.
        aggregate: What all processes have counted.
    """

    def __init__(self, config: ServerConfig, *, command: Sequence[str] = WORKER_COMMAND) -> None:
        self._config, self._ports = _hold_ports(config)
        self.port = self._config.port
        self.http_port = None if config.http_port == NO_PORT else self._config.http_port
        self._command = command
        self._processors = own_processors(config)
        self._generation = SharedGeneration.create()
        self._started: list[WorkerProcess] = []
        self._starting = Lock()
        self._stopping = Event()
        self._one_ended = Event()
        self._pool = ProcessPool(self._generation, self._start_worker, config.workers)
        self._hangs = self._scrapes_missed = 0
        self.adapter = ""  # what answers Predict, in words, once it was started
        self.lifecycle = Lifecycle(config, self._pool)
        self.aggregate = Aggregate(self._metrics)
        controller = self.lifecycle.controller
        self._handlers: Final[Mapping[str, Handler]] = {
            "load": controller.load,
            "unload": controller.unload,
            "reload": controller.reload,
            "totals": self.aggregate.snapshot,
        }

    def start(self) -> None:
        """Have all workers serve what is there.

        Raises:
            StartError: One of them died, or cannot listen.
        """
        try:
            self._pool.begin()
            Thread(target=self._replace_ended, name="replace-ended", daemon=True).start()
            Thread(target=self._kill_hanging, name="kill-hanging", daemon=True).start()
            if self._processors is not None:
                Thread(target=self._lend_processors, name="lend-processors", daemon=True).start()
            self.lifecycle.start()
            self.adapter = self._pool.open()
        except WorkerLostError as error:
            self.stop()
            raise StartError(f"a worker died while it started: {error}") from error
        except Exception:
            self.stop()
            raise

    def reload(self) -> None:
        """Look now whether models changed, and have all workers look at certificates and tokens."""
        for worker in self._pool.workers:
            worker.reload()
        self.lifecycle.reload()

    def stop(self) -> None:
        """Have all workers answer what they have accepted, and end."""
        if self._config.shadow:
            self.aggregate.snapshot()  # what a worker counts after it was last asked goes with it
        self._pool.stop()
        with self._starting:
            self._stopping.set()
            workers = [worker for worker in self._started if not worker.has_ended]
        self._one_ended.set()
        for worker in workers:
            worker.terminate()
        config = self._config
        deadline_s = time.monotonic() + config.drain_seconds + config.stop_grace_s + _AFTER_GRACE_S
        for worker in workers:
            worker.wait(max(0.0, deadline_s - time.monotonic()))
        self.lifecycle.stop()
        self._ports.close()

    def _metrics(self) -> Mapping[Hashable, MetricsSnapshot | None]:
        """Return what each process has counted; see ``Aggregate``."""
        workers = self._pool.workers
        # At once: one that hangs is not to keep the others from being heard.
        with ThreadPoolExecutor(len(workers) or 1) as asking:
            found = list(asking.map(_metrics_of, workers, count()))
        answers = list(zip(workers, found, strict=True))
        silent = [worker for worker, answer in answers if answer is None and worker.is_open]
        self._scrapes_missed += sum(not worker.has_ended for worker in silent)
        own = merged(
            [
                process_snapshot("supervisor"),
                self.lifecycle.metrics(),
                {metrics.DEATHS.name: [([], self._pool.deaths)]},
                {metrics.HANGS.name: [([], self._hangs)]},
                {metrics.SCRAPES_MISSED.name: [([], self._scrapes_missed)]},
            ]
        )
        return {"supervisor": own, **{worker.process_id: answer for worker, answer in answers}}

    def _start_worker(self, slot: int) -> WorkerProcess:
        with self._starting:
            if self._stopping.is_set():
                raise WorkerLostError("the server is stopping")
            try:
                worker = WorkerProcess(
                    replace(self._config, logs_shadow=slot == 0),
                    self._generation,
                    processor=None if self._processors is None else self._processors[slot],
                    handlers=self._handlers,
                    on_end=self._one_ended.set,
                    command=self._command,
                )
            except OSError as error:
                raise WorkerLostError(f"none can be started: {error.strerror}") from error
            live = [started for started in self._started if not started.has_ended]
            self._started = [*live, worker]
            return worker

    def _replace_ended(self) -> None:
        """Replace workers that end, until the server stops."""
        pause_s = _MIN_PAUSE_S
        while not self._stopping.is_set():
            self._one_ended.wait()
            self._one_ended.clear()
            if self._pool.has_one_ended_well() and self._stopping.wait(_TOGETHER_S):
                break
            if self._try_to_replace():
                pause_s = _MIN_PAUSE_S
            else:
                self._one_ended.set()  # try again
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)
            self._stopping.wait(pause_s)

    def _kill_hanging(self) -> None:
        """Kill workers that give no heartbeat, until the server stops; they are replaced then."""
        timeout_s = self._config.worker_timeout_s
        monitor = HeartbeatMonitor(lambda: self._pool.workers, max_missed=_MAX_MISSED_HEARTBEATS)
        while not self._stopping.wait(timeout_s / _MAX_MISSED_HEARTBEATS):
            for worker in monitor.check():
                self._hangs += 1
                worker.kill(_HANGS.format(timeout_s))

    def _lend_processors(self) -> None:
        """Have busy workers use the processors of idle ones too, until the server stops."""
        lender = ProcessorLender(lambda: self._pool.workers)
        while not self._stopping.wait(LENDING_PERIOD_S):
            lender.check(time.monotonic())

    def _try_to_replace(self) -> bool:
        try:
            return self._pool.replace_ended()
        except Exception:  # the next attempt may go well; those that live go on
            logger.exception("workers that ended could not be replaced; it is tried again")
            return False


def _metrics_of(worker: WorkerProcess, slot: int) -> MetricsSnapshot | None:
    return worker.metrics(f"worker-{slot}")


def _hold_ports(config: ServerConfig) -> tuple[ServerConfig, ExitStack]:
    """Take the ports; return settings that name them, and what gives them back."""
    with ExitStack() as held:
        port = held.enter_context(closing(SharedPort(config.host, config.port)))
        config = replace(config, port=port.port, shares_port=True)
        if config.http_port != NO_PORT:
            port = held.enter_context(closing(SharedPort(config.host, config.http_port)))
            config = replace(config, http_port=port.port)
        return config, held.pop_all()
