"""The supervisor's manager and totals, as a worker asks for them through its conversation."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from mlpserve.server.errors import OverloadedError
from mlpserve.server.inference.model_manager import ModelManager
from mlpserve.server.models.controller import check_asked
from mlpserve.server.telemetry.snapshots import MetricsSnapshot
from mlpserve.server.workers import methods
from mlpserve.server.workers.connection import ConnectionClosedError, Content
from mlpserve.server.workers.rpc import RpcChannel

_STOPPING: Final = "the server is stopping; try again later"


class RemoteManager:
    """The supervisor's manager, as a worker has it.

    Args:
        supervisor: The conversation with it.
    """

    def __init__(self, supervisor: RpcChannel) -> None:
        self._supervisor = supervisor

    def load(self, name: str, version: int = 0) -> None:
        """See ``ModelManager``."""
        check_asked(name, version)  # here, so that no nonsense goes to the process that all need
        self._ask("load", name=name, version=version)

    def unload(self, name: str, version: int = 0) -> None:
        """See ``ModelManager``."""
        check_asked(name, version)
        self._ask("unload", name=name, version=version)

    def reload(self) -> bool:
        """See ``ModelManager``."""
        return bool(self._ask("reload"))

    def _ask(self, wish: str, **arguments: object) -> object:
        asked = {"wish": wish, "arguments": arguments}
        try:
            return self._supervisor.call(methods.MANAGE, asked)["result"]
        except ConnectionClosedError as error:
            raise OverloadedError(_STOPPING) from error


def totals(supervisor: RpcChannel) -> MetricsSnapshot:
    """Return what all processes of the server have counted, as a worker asks it.

    Raises:
        OverloadedError: The server is stopping.
    """
    try:
        snapshot: MetricsSnapshot = supervisor.call(methods.TOTALS, {})["snapshot"]
    except ConnectionClosedError as error:
        raise OverloadedError(_STOPPING) from error
    return snapshot


def fulfil(manager: ModelManager, asked: Mapping[str, Any]) -> Content:
    """Do for a worker what its ``RemoteManager`` was asked."""
    wishes: Mapping[str, Callable[..., object]] = {
        "load": manager.load,
        "unload": manager.unload,
        "reload": manager.reload,
    }
    return {"result": wishes[asked["wish"]](**asked["arguments"])}
