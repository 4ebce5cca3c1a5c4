"""Process of a worker, as its supervisor sees it: started, called over rpc, and ended."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final

from mlpserve.model.folder import VersionKey
from mlpserve.server.errors import ShortageError
from mlpserve.server.models.plan import Plan
from mlpserve.server.models.quarantine import LoadError
from mlpserve.server.models.snapshots import Snapshot, load_lacking
from mlpserve.server.settings.config import ServerConfig, blas_environment
from mlpserve.server.telemetry.snapshots import MetricsSnapshot
from mlpserve.server.workers.connection import ConnectionClosedError, connection_pair
from mlpserve.server.workers.processors import Place
from mlpserve.server.workers.rpc import Handler, PeerError, RpcChannel
from mlpserve.server.workers.shared_generation import SharedGeneration

WORKER_COMMAND: Final = (sys.executable, "-P", "-m", "mlpserve.server.workers.worker")
# All but loading is a matter of milliseconds, and takes longer only where the machine is very busy.
_CALL_TIMEOUT_S: Final = 60.0
_METRICS_TIMEOUT_S: Final = 1.0
_RELOAD_TIMEOUT_S: Final = 5.0
_AFTER_CLOSING_S: Final = 10.0  # in which Python ends, on a busy machine too


class WorkerLostError(Exception):
    """A worker died, or did not do in time what it was called for; the message says how it ended.

    Attributes:
        loading: The version that it was loading then; None where it was none.
    """

    def __init__(self, how_it_ended: str, loading: VersionKey | None = None) -> None:
        super().__init__(how_it_ended)
        self.loading = loading


class WorkerProcess:
    """A worker process. For one thread at a time, but where a method says otherwise.

    ``begin``, ``prepare``, ``open`` and ``activate`` raise ``WorkerLostError`` where it dies, fails
    or takes too long; then it is ended.

    Args:
        config: How it is to serve.
        generation: Where it reads which generation is served.
        processor: See the attribute.
        handlers: What it may call; see ``RpcChannel``.
        on_end: Called when it answers no more, from another thread.
        command: Runs it, with the descriptor of its connection as one more argument.

    Raises:
        OSError: The system starts no process.

    Attributes:
        processor: The only one that it may use, but for those that it borrows; None for any.
        generation: The newest generation that it has prepared.
        is_open: Whether it answers requests.
    """

    def __init__(
        self,
        config: ServerConfig,
        generation: SharedGeneration,
        *,
        processor: int | None,
        handlers: Mapping[str, Handler],
        on_end: Callable[[], None],
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._load_timeout_s = config.load_timeout_s
        self._loaded: dict[VersionKey, Snapshot] = {}
        self._prepared: Mapping[VersionKey, Snapshot] = {}
        self._kill_reason: str | None = None
        self._has_ended = Event()
        self._last_heartbeat: Future[int] | None = None
        self._turns = -1  # of the thread that serves, as the last heartbeat told
        self.processor: Final = processor
        self.generation = 0
        self.is_open = False
        own, other = connection_pair()
        with other:
            self._process = _started(command, other.fileno(), config.threads)
        settings = {"config": config.to_plain(), "processor": processor}
        with suppress(ConnectionClosedError):  # it has died already, and will be found dead
            own.send(settings, [generation.descriptor])
        self._folder = Path("/proc", str(self._process.pid))
        self._rpc = RpcChannel(own, handlers, on_end=partial(self._end, on_end))

    @property
    def process_id(self) -> int:
        """Return the process's id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Return whether it answers no more."""
        return self._has_ended.is_set() or self._process.poll() is not None

    @property
    def has_ended_well(self) -> bool:
        """Return whether it answers no more, and has ended as it does when it is told to stop."""
        return self.has_ended and self.wait(_AFTER_CLOSING_S) == 0

    def begin(self) -> None:
        """Wait until it can be called."""
        self._call("begin")

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, LoadError]:
        """Have it load what it lacks of a plan; see ``WorkerPool.prepare``."""
        errors = load_lacking(self._loaded, snapshots, self._load)
        if not errors:
            self._call("prepare", {"generation": generation, "plan": plan.to_json()})
            self.generation, self._prepared = generation, snapshots
        return errors

    def open(self) -> str:
        """Have it answer requests; return what answers Predict, in words.

        Raises:
            StartError: It cannot listen.
        """
        adapter = str(self._call("open"))
        self.is_open = True
        return adapter

    def activate(self, generation: int) -> None:
        """Tell it that this generation is served from now on."""
        self._call("activate", {"generation": generation})
        self._loaded = dict(self._prepared)

    def metrics(self, process: str) -> MetricsSnapshot | None:
        """Return what it has counted so far; None where it does not say so soon. For any thread.

        Args:
            process: What the worker is called in labels.
        """
        arguments = {"process": process}
        snapshot: MetricsSnapshot | None = None
        with suppress(ConnectionClosedError, PeerError, TimeoutError):
            snapshot = self._rpc.call("metrics", arguments, timeout_s=_METRICS_TIMEOUT_S)
        return snapshot

    def reload(self) -> None:
        """Have it look now whether certificates or tokens changed, if it can. For any thread."""
        with suppress(ConnectionClosedError, PeerError, TimeoutError):
            self._rpc.call("reload", timeout_s=_RELOAD_TIMEOUT_S)

    def check_heartbeat(self) -> bool:
        """Return whether it has served since the last heartbeat that came; ask for the next.

        For one thread at a time, also while another one calls.
        """
        last, before = self._last_heartbeat, self._turns
        if last is not None and not last.done():
            return False
        if last is not None and last.exception() is None:
            self._turns = last.result()
        with suppress(ConnectionClosedError):  # it has ended, which is found out elsewhere
            self._last_heartbeat = self._rpc.call_soon("heartbeat")
        return last is None or self._turns != before

    def cpu_s(self) -> float | None:
        """Return how much processor time it has used; None where it has ended."""
        if self.has_ended:  # and its number may be another's by now
            return None
        try:
            text = (self._folder / "stat").read_text()
        except OSError:
            return None
        in_user, in_system = text.rpartition(")")[2].split()[11:13]  # see proc_pid_stat(5)
        return (int(in_user) + int(in_system)) / os.sysconf("SC_CLK_TCK")

    def move(self, place: Place) -> None:
        """Have all its threads run there."""
        if self.processor is None or self.has_ended:
            return
        processors = place.borrowed | {self.processor}
        policy = os.SCHED_OTHER if place.preempts else os.SCHED_BATCH
        moved: set[int] = set()
        with suppress(OSError):  # it has ended, or a processor is not granted any more
            # Threads that begin meanwhile have the place of the one that has started them.
            while new := {int(each.name) for each in (self._folder / "task").iterdir()} - moved:
                for thread in new:
                    with suppress(ProcessLookupError):
                        os.sched_setaffinity(thread, processors)
                        with suppress(OSError):  # some sandboxes and C libraries have none of it
                            os.sched_setscheduler(thread, policy, os.sched_param(0))
                moved |= new

    def terminate(self) -> None:
        """Tell it to answer what it has accepted, and to end."""
        self._process.terminate()

    def kill(self, reason: str) -> None:
        """End it at once, and do not wait for that. For any thread.

        Args:
            reason: What ``how_it_ended`` is to return.
        """
        self._kill_reason = reason
        self._process.kill()

    def wait(self, timeout_s: float) -> int:
        """Wait for the end, bring it about where it does not come in time; return the exit code."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._process.wait()

    def how_it_ended(self) -> str:
        """Return how a worker that answers no more, or was killed, has ended."""
        exit_code = self.wait(_AFTER_CLOSING_S)
        return self._kill_reason or f"exit code {exit_code}"

    def _load(self, key: VersionKey, snapshot: Snapshot) -> LoadError | None:
        """Have it load a version; return why it cannot be served, if it cannot."""
        try:
            result = self._call(
                "load",
                {"name": key.name, "version": key.version},
                [snapshot.descriptor],
                timeout_s=self._load_timeout_s,
                loading=key,
            )
        except ShortageError as error:
            return LoadError(f"it cannot be loaded: {error}; it is tried again", is_transient=True)
        return None if result is None else LoadError(*result)

    def _call(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        descriptors: Sequence[int] = (),
        *,
        timeout_s: float = _CALL_TIMEOUT_S,
        loading: VersionKey | None = None,
    ) -> Any:  # noqa: ANN401 - see RpcChannel.call
        try:
            return self._rpc.call(method, arguments or {}, descriptors, timeout_s=timeout_s)
        except ConnectionClosedError as error:
            raise WorkerLostError(self.how_it_ended(), loading) from error
        except TimeoutError as error:
            self.kill(f"it took over {timeout_s:g} s to {method}, and was killed")
            raise WorkerLostError(self.how_it_ended(), loading) from error
        except PeerError as error:
            self.kill(f"it failed to {method}, and was killed")
            raise WorkerLostError(self.how_it_ended(), loading) from error

    def _end(self, on_end: Callable[[], None]) -> None:
        self._has_ended.set()
        on_end()


def _started(command: Sequence[str], descriptor: int, threads: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own program
        [*command, str(descriptor)],
        stdin=subprocess.DEVNULL,
        pass_fds=[descriptor],
        env={**os.environ, **blas_environment(threads)},
    )
