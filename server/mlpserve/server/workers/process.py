"""A worker as its supervisor sees it: a process that is told what to do over a channel."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Final

from mlpserve.model.folder import VersionKey
from mlpserve.server.errors import ShortageError
from mlpserve.server.models.plan import PassingProblem, Plan
from mlpserve.server.models.snapshots import Snapshot
from mlpserve.server.models.worker_pool import LoadedSnapshots
from mlpserve.server.settings.config import blas_environment
from mlpserve.server.telemetry.snapshots import MetricsSnapshot
from mlpserve.server.workers import methods
from mlpserve.server.workers.connection import ConnectionClosedError, Content, connection_pair
from mlpserve.server.workers.methods import Settings
from mlpserve.server.workers.rpc import Handler, PeerError, RpcChannel
from mlpserve.server.workers.shared_generation import SharedGeneration

WORKER_COMMAND: Final = (sys.executable, "-P", "-m", "mlpserve.server.workers.worker")
# All but loading is a matter of milliseconds, and takes longer only where the machine is very busy.
_ORDER_TIMEOUT_S: Final = 60.0
_METRICS_TIMEOUT_S: Final = 1.0
_LOOK_TIMEOUT_S: Final = 5.0
_AFTER_CLOSING_S: Final = 1.0
_NO_ARGUMENTS: Final[Content] = {}


class WorkerLostError(Exception):
    """A worker died, or did not do in time what it was told to; then it was killed.

    Attributes:
        reason: How it ended.
        loading: The version that it was loading then; None where it was none.
    """

    def __init__(self, reason: str, loading: VersionKey | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.loading = loading


class Worker:
    """A process of the server. It is sent orders by one thread at a time.

    Args:
        settings: How it is to serve.
        board: Where it reads which generation is served.
        handle: Answers its calls; see ``RpcChannel``.
        on_end: Called when it answers no more, from another thread.
        command: Runs it, with the descriptor of its channel as one more argument.

    Raises:
        OSError: The system starts no process.

    Attributes:
        generation: The newest generation that it has prepared.
        is_open: Whether it answers calls.
    """

    def __init__(
        self,
        settings: Settings,
        board: SharedGeneration,
        *,
        handle: Handler,
        on_end: Callable[[], None],
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._load_timeout_s = settings.config.load_timeout_s
        self._held = LoadedSnapshots()
        self._plan = Plan({})
        self._ending: str | None = None
        self._has_ended = Event()
        self._sign: Future[Content] | None = None
        self.generation = 0
        self.is_open = False
        own, other = connection_pair()
        with other:
            self._process = _started(command, other.fileno(), settings.config.threads)
        with suppress(ConnectionClosedError):  # it has died already, and will be found dead
            own.send(settings.to_content(), [board.descriptor])
        self._conversation = RpcChannel(own, handle, on_end=partial(self._end, on_end))

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
        return self.has_ended and self.wait_until_ended(_AFTER_CLOSING_S) == 0

    def begin(self) -> None:
        """Wait until it takes methods.

        Raises:
            WorkerLostError: As all methods.
        """
        self._order(methods.BEGIN)

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, str]:
        """Have it load what it lacks of a plan; see ``WorkerPool.prepare``.

        Raises:
            WorkerLostError: As all methods.
        """
        lacking = self._held.lacking(snapshots)
        found = {key: self._load(key, snapshot) for key, snapshot in lacking.items()}
        problems = {key: problem for key, problem in found.items() if problem is not None}
        if not problems:
            self._order(methods.PREPARE, {"generation": generation, "plan": plan.to_json()})
            self.generation, self._plan = generation, plan
        return problems

    def open(self) -> str:
        """Have it answer calls; return what answers Predict, in words.

        Raises:
            StartError: It cannot listen.
            WorkerLostError: As all methods.
        """
        adapter = str(self._order(methods.OPEN)["adapter"])
        self.is_open = True
        return adapter

    def follow(self, generation: int) -> None:
        """Tell it that this generation is served from now on.

        Raises:
            WorkerLostError: As all methods.
        """
        self._order(methods.FOLLOW, {"generation": generation})
        self._held.keep(self._plan.version_keys())

    def metrics(self, process: str) -> MetricsSnapshot | None:
        """Return what it has counted so far; None where it does not say so soon.

        May be called by any thread, also while the worker follows an order.

        Args:
            process: What the worker is called in labels.
        """
        try:
            answer = self._conversation.call(
                methods.METRICS, {"process": process}, timeout_s=_METRICS_TIMEOUT_S
            )
        except (ConnectionClosedError, PeerError, TimeoutError):
            return None
        return answer.get("snapshot")

    def look(self) -> None:
        """Have it look now whether certificates or tokens changed; where it cannot, leave it so.

        May be called by any thread, also while the worker follows an order.
        """
        with suppress(ConnectionClosedError, PeerError, TimeoutError):
            self._conversation.call(methods.LOOK, timeout_s=_LOOK_TIMEOUT_S)

    def gives_sign(self) -> bool:
        """Return whether the sign of life came that was asked for the last time; ask for the next.

        For one thread at a time, also while the worker follows an order.
        """
        if self._sign is not None and not self._sign.done():
            return False
        with suppress(ConnectionClosedError):  # it has ended, which is found out elsewhere
            self._sign = self._conversation.ask(methods.SIGN)
        return True

    def give_up(self, reason: str) -> None:
        """Have it end at once, and wait for nothing.

        Args:
            reason: What ``how_it_ended`` is to return.
        """
        self._ending = reason
        self._process.kill()

    def tell_to_stop(self) -> None:
        """Tell it to answer what it has accepted, and to end."""
        self._process.terminate()

    def kill(self, reason: str) -> None:
        """End it at once.

        Args:
            reason: What ``how_it_ended`` is to return.
        """
        self.give_up(reason)
        self._process.wait()

    def wait_until_ended(self, timeout_s: float) -> int:
        """Wait for the end, bring it about where it does not come in time; return the exit code."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._process.wait()

    def how_it_ended(self) -> str:
        """Return how a worker that answers no more has ended."""
        exit_code = self.wait_until_ended(_AFTER_CLOSING_S)
        return self._ending or f"exit code {exit_code}"

    def _load(self, key: VersionKey, snapshot: Snapshot) -> str | None:
        """Have it load a version; return what is wrong with that."""
        try:
            answer = self._order(
                methods.LOAD,
                {"name": key.name, "version": key.version},
                [snapshot.descriptor],
                timeout_s=self._load_timeout_s,
                loading=key,
            )
        except ShortageError as error:
            return PassingProblem(f"it cannot be loaded: {error}; it is tried again")
        problem: str | None = answer["problem"]
        if problem is not None and answer["passes"]:
            problem = PassingProblem(problem)
        self._held.add({key: snapshot}, [] if problem is None else [key])
        return problem

    def _order(
        self,
        method: str,
        arguments: Content = _NO_ARGUMENTS,
        descriptors: Sequence[int] = (),
        *,
        timeout_s: float = _ORDER_TIMEOUT_S,
        loading: VersionKey | None = None,
    ) -> Content:
        try:
            return self._conversation.call(method, arguments, descriptors, timeout_s=timeout_s)
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
