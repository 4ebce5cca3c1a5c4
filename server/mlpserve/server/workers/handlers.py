"""Handlers of the rpc methods of a worker: what its supervisor may call, and what that does."""

from collections.abc import Callable
from typing import Any, Final

from mlpserve.model.folder import VersionKey
from mlpserve.server.errors import OverloadedError
from mlpserve.server.models.controller import check_load_request
from mlpserve.server.models.generations import Generations
from mlpserve.server.models.plan import Plan
from mlpserve.server.models.quarantine import LoadError
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.telemetry.snapshots import MetricsSnapshot
from mlpserve.server.workers.connection import Connection, ConnectionClosedError
from mlpserve.server.workers.rpc import Handler, RpcChannel
from mlpserve.server.workers.shared_generation import SharedGeneration

# It asks all workers, and gives each a second; whoever comes meanwhile waits for the next answers.
_TOTALS_TIMEOUT_S: Final = 5.0


class WorkerHandlers:
    """A worker's end of the channel to its supervisor.

    The supervisor makes one call at a time, but for those that may come meanwhile: ``heartbeat``,
    ``reload`` and ``metrics``.

    Args:
        config: How to serve.
        generation: Says which generation is served.
        connection: Brings the calls.
        on_end: Called, from another thread, when the supervisor is gone.
    """

    def __init__(
        self,
        config: ServerConfig,
        generation: SharedGeneration,
        connection: Connection,
        *,
        on_end: Callable[[], None],
    ) -> None:
        self._config = config
        self._shared = generation
        self._generations = Generations(
            generation, reproducible=config.reproducible, default_model=config.default_model
        )
        self._server: Server | None = None
        handlers: dict[str, Handler] = {
            "begin": lambda: None,  # returns as soon as the worker can be called
            "heartbeat": self._heartbeat,
            "load": self._load,
            "prepare": self._prepare,
            "open": self._open,
            "activate": self._activate,
            "reload": self._reload,
            "metrics": self._metrics,
        }
        self._supervisor: Final = RpcChannel(
            connection, handlers, quick={"heartbeat"}, on_end=on_end
        )

    def stop(self, *, drains: bool) -> None:
        """Answer what was accepted, and end; see ``Server.stop``."""
        if self._server is not None:
            self._server.stop(drains=drains)
        # Calls that wait for the supervisor would keep this process from ending.
        self._supervisor.end()

    def _heartbeat(self) -> int:
        """Return a number that grows as long as the thread that serves goes on."""
        return 0 if self._server is None else self._server.heartbeat()

    def _load(self, descriptor: int, *, name: str, version: int) -> LoadError | None:
        """Load a version from its snapshot; return why it cannot be served, if it cannot."""
        return self._generations.load(VersionKey(name, version), descriptor)

    def _prepare(self, *, generation: int, plan: str) -> None:
        """Prepare a generation, all versions of which are loaded."""
        self._generations.prepare(generation, Plan.from_json(plan))

    def _open(self) -> str:
        """Listen, and answer requests; return what answers Predict, in words."""
        manager = RemoteManager(self._supervisor)
        self._server = Server(
            self._config,
            generations=self._generations,
            manager=manager,
            totals=manager.totals,
        )
        self._server.start()
        return self._server.adapter

    def _activate(self, *, generation: int) -> None:
        """Forget what was before a generation that is served now."""
        self._generations.forget_before(generation)
        if self._server is not None:
            self._server.show_health()

    def _reload(self) -> None:
        """Look now whether certificates or tokens have changed."""
        if self._server is not None:
            self._server.reload()

    def _metrics(self, *, process: str) -> MetricsSnapshot | None:
        """Return what was counted so far; None where nothing can have been."""
        return None if self._server is None else self._server.metrics(process)


class RemoteManager:
    """The supervisor's ``ModelManager`` and its totals, as a worker has them.

    Args:
        supervisor: The channel to it.
    """

    def __init__(self, supervisor: RpcChannel) -> None:
        self._supervisor = supervisor

    def load(self, name: str, version: int = 0) -> None:
        """See ``ModelManager``."""
        check_load_request(
            name, version
        )  # here, so that no nonsense goes to the process that all need
        self._call("load", name=name, version=version)

    def unload(self, name: str, version: int = 0) -> None:
        """See ``ModelManager``."""
        check_load_request(name, version)
        self._call("unload", name=name, version=version)

    def reload(self) -> bool:
        """See ``ModelManager``."""
        return bool(self._call("reload"))

    def totals(self) -> MetricsSnapshot:
        """Return what all processes of the server have counted.

        Raises:
            OverloadedError: The server is stopping, or its supervisor does not answer.
        """
        snapshot: MetricsSnapshot = self._call("totals", timeout_s=_TOTALS_TIMEOUT_S)
        return snapshot

    def _call(self, method: str, *, timeout_s: float | None = None, **arguments: object) -> Any:  # noqa: ANN401 - see RpcChannel.call
        try:
            return self._supervisor.call(method, arguments, timeout_s=timeout_s)
        except ConnectionClosedError as error:
            raise OverloadedError("the server is stopping; try again later") from error
        except TimeoutError as error:
            raise OverloadedError("the supervisor does not answer; try again later") from error
