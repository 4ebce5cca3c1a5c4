"""Looks after what a server serves, from its start to its end."""

import stat
from pathlib import Path
from typing import Final

from mlpserve.server.config import WATCH, ServerConfig
from mlpserve.server.errors import StartError
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

    Raises:
        StartError: The models folder is no folder. It may be missing: then it is waited for.
    """

    def __init__(self, config: ServerConfig, crew: Crew) -> None:
        _check_folder(config.models)
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


def _check_folder(models: Path) -> None:
    try:
        is_folder = stat.S_ISDIR(models.stat().st_mode)
    except OSError:
        return  # it may come, or become readable
    if not is_folder:
        raise StartError(f"models: expected a folder, got a file: {models}")
