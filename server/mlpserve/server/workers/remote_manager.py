"""The supervisor's manager and totals, as a worker asks for them through its conversation."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from mlpserve.server.errors import OverloadedError
from mlpserve.server.lifecycle.controller import check_asked
from mlpserve.server.lifecycle.manager import Manager
from mlpserve.server.processes import orders
from mlpserve.server.processes.channel import ChannelClosedError, Content
from mlpserve.server.processes.conversation import Conversation
from mlpserve.server.telemetry.metrics.snapshots import MetricsSnapshot

_STOPPING: Final = "the server is stopping; try again later"


class RemoteManager:
    """The supervisor's manager, as a worker has it.

    Args:
        supervisor: The conversation with it.
    """

    def __init__(self, supervisor: Conversation) -> None:
        self._supervisor = supervisor

    def load(self, name: str, version: int = 0) -> None:
        """See ``Manager``."""
        check_asked(name, version)  # here, so that no nonsense goes to the process that all need
        self._ask("load", name=name, version=version)

    def unload(self, name: str, version: int = 0) -> None:
        """See ``Manager``."""
        check_asked(name, version)
        self._ask("unload", name=name, version=version)

    def reload(self) -> bool:
        """See ``Manager``."""
        return bool(self._ask("reload"))

    def _ask(self, wish: str, **arguments: object) -> object:
        asked = {"wish": wish, "arguments": arguments}
        try:
            return self._supervisor.call(orders.MANAGE, asked)["result"]
        except ChannelClosedError as error:
            raise OverloadedError(_STOPPING) from error


def totals(supervisor: Conversation) -> MetricsSnapshot:
    """Return what all processes of the server have counted, as a worker asks it.

    Raises:
        OverloadedError: The server is stopping.
    """
    try:
        snapshot: MetricsSnapshot = supervisor.call(orders.TOTALS, {})["snapshot"]
    except ChannelClosedError as error:
        raise OverloadedError(_STOPPING) from error
    return snapshot


def fulfil(manager: Manager, asked: Mapping[str, Any]) -> Content:
    """Do for a worker what its ``RemoteManager`` was asked."""
    wishes: Mapping[str, Callable[..., object]] = {
        "load": manager.load,
        "unload": manager.unload,
        "reload": manager.reload,
    }
    return {"result": wishes[asked["wish"]](**asked["arguments"])}
