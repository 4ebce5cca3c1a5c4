"""Looks after what a server serves, from its start to its end."""

import stat
from pathlib import Path
from typing import Final

from mlpserve.model.errors import SyncError
from mlpserve.model.sync.follower import Follower, open_models
from mlpserve.model.sync.synchronizer import Synchronizer
from mlpserve.model.sync.urls import shown
from mlpserve.server.errors import StartError
from mlpserve.server.models.controller import Controller
from mlpserve.server.models.selection import Rules
from mlpserve.server.models.snapshot_cache import SnapshotTaker
from mlpserve.server.models.watcher import Watcher
from mlpserve.server.models.worker_pool import WorkerPool
from mlpserve.server.settings.config import WATCH, ServerConfig
from mlpserve.server.settings.policies import parse_policies

_BYTES_PER_MB: Final = 1 << 20


class Lifecycle:
    """Has a crew serve what the models folder holds, as the settings say.

    Args:
        config: The settings.
        crew: Who serves.

    Raises:
        StartError: The models folder is no folder, or its URL cannot be used. It may be missing:
            then it is waited for.
    """

    def __init__(self, config: ServerConfig, crew: WorkerPool) -> None:
        try:
            models = open_models(
                config.models,
                cache=config.cache,
                largest_weights_bytes=config.max_version_mb * _BYTES_PER_MB,
            )
        except SyncError as error:
            raise StartError(str(error)) from error
        self._mirroring: Follower | None = None
        if isinstance(models, Synchronizer):
            self._mirroring = Follower(models, period_s=config.store_period_s)
            models = models.folder
        _check_folder(models)
        self.controller: Final = Controller(
            SnapshotTaker(models, config.max_version_mb),
            crew,
            Rules(parse_policies(config.versions), config.default_label),
        )
        self._watcher = Watcher(models, self.controller.reload) if config.reload == WATCH else None

    def start(self) -> None:
        """Serve what is there; return when it is served, and go on looking in the background."""
        if self._mirroring is not None:
            self._mirroring.start()
        self.controller.reload()
        if self._watcher is not None:
            self._watcher.start()

    def look(self) -> None:
        """Look now whether there is something else to serve."""
        if self._mirroring is not None:
            self._mirroring.look_soon()
        self.controller.reload()

    def stop(self) -> None:
        """Change nothing any more."""
        if self._mirroring is not None:
            self._mirroring.stop()
        if self._watcher is not None:
            self._watcher.stop()


def _check_folder(models: Path) -> None:
    try:
        is_folder = stat.S_ISDIR(models.stat().st_mode)
    except OSError:
        return  # it may come, or become readable
    if not is_folder:
        raise StartError(f"models: expected a folder, got a file: {shown(models)}")
