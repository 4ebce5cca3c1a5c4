"""What a worker does when its supervisor says so; see `orders`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from mlpserve.model.folder import VersionKey
from mlpserve.server.models.generations import Generations
from mlpserve.server.models.plan import PassingProblem, Plan
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.telemetry.tallies import Tallies
from mlpserve.server.workers import methods
from mlpserve.server.workers.connection import Connection, Content
from mlpserve.server.workers.remote_manager import RemoteManager, totals
from mlpserve.server.workers.rpc import RpcChannel
from mlpserve.server.workers.shared_generation import SharedGeneration

_Duty: TypeAlias = Callable[[Mapping[str, Any], Sequence[int]], Content]


class RpcHandlers:
    """Follows orders, one at a time; looks at files and tells metrics meanwhile.

    Args:
        config: How to serve.
        board: Says which generation is served.
        channel: Brings the methods.
        on_end: Called, from another thread, when the supervisor is gone.
    """

    def __init__(
        self,
        config: ServerConfig,
        board: SharedGeneration,
        channel: Connection,
        *,
        on_end: Callable[[], None],
    ) -> None:
        self._config = config
        self._board = board
        self._generations = Generations(board, reproducible=config.reproducible)
        self._server: Server | None = None
        self._duties: Final[Mapping[str, _Duty]] = {
            methods.BEGIN: lambda _arguments, _descriptors: {},
            methods.SIGN: lambda _arguments, _descriptors: {},
            methods.LOAD: self._load,
            methods.PREPARE: self._prepare,
            methods.OPEN: self._open,
            methods.FOLLOW: self._follow,
            methods.LOOK: self._look,
            methods.METRICS: self._metrics,
        }
        self._supervisor = RpcChannel(channel, self._handle, on_end=on_end)

    def stop(self, *, drains: bool) -> None:
        """Answer what was accepted, and end; see ``Server.stop``."""
        if self._server is not None:
            self._server.stop(drains=drains)
        # Calls that wait for the supervisor would keep this process from ending.
        self._supervisor.end()

    def _handle(
        self, method: str, arguments: Mapping[str, Any], descriptors: Sequence[int]
    ) -> Content:
        return self._duties[method](arguments, descriptors)

    def _load(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> Content:
        (descriptor,) = descriptors
        problem = self._generations.load(VersionKey(**arguments), descriptor)
        return {"problem": problem, "passes": isinstance(problem, PassingProblem)}

    def _prepare(self, arguments: Mapping[str, Any], _: Sequence[int]) -> Content:
        plan = Plan.from_json(arguments["plan"])
        self._generations.prepare(arguments["generation"], plan, {})
        return {}

    def _open(self, _arguments: Mapping[str, Any], _descriptors: Sequence[int]) -> Content:
        self._server = Server(
            self._config,
            generations=self._generations,
            manager=RemoteManager(self._supervisor),
            tallies=Tallies.join(self._board.tallies, self._board.descriptor),
            totals=lambda: totals(self._supervisor),
        )
        self._server.start()
        return {"adapter": self._server.adapter}

    def _follow(self, arguments: Mapping[str, Any], _: Sequence[int]) -> Content:
        self._generations.forget_before(arguments["generation"])
        if self._server is not None:
            self._server.show_health()
        return {}

    def _look(self, _arguments: Mapping[str, Any], _descriptors: Sequence[int]) -> Content:
        if self._server is not None:
            self._server.look()
        return {}

    def _metrics(self, arguments: Mapping[str, Any], _: Sequence[int]) -> Content:
        server = self._server
        return {} if server is None else {"snapshot": server.metrics(arguments["process"])}
