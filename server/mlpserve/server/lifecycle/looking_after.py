"""Looks after what a server serves, from its start to its end."""

from typing import Final

from mlpserve.server.config import WATCH, ServerConfig
from mlpserve.server.lifecycle.controller import Controller
from mlpserve.server.lifecycle.crew import Crew
from mlpserve.server.lifecycle.holdings import SnapshotTaker
from mlpserve.server.lifecycle.policy import parse_policies
from mlpserve.server.lifecycle.selection import Rules
from mlpserve.server.lifecycle.watching import Watcher


class Lifecycle:
    """Has a crew serve what the models folder holds, as the settings say.

    Args:
        config: The settings.
        crew: Who serves.
    """

    def __init__(self, config: ServerConfig, crew: Crew) -> None:
        self.controller: Final = Controller(
            SnapshotTaker(config.models, config.max_version_mb),
            crew,
            Rules(parse_policies(config.versions), config.default_label),
        )
        self._watcher = (
            Watcher(config.models, self.controller.reload) if config.reload == WATCH else None
        )

    def start(self) -> None:
        """Serve what is there; return when it is served, and go on looking in the background."""
        self.controller.reload()
        if self._watcher is not None:
            self._watcher.start()

    def stop(self) -> None:
        """Change nothing any more."""
        if self._watcher is not None:
            self._watcher.stop()
