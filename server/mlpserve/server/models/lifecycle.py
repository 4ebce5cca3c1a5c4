"""Lifecycle of what a server serves: the controller and the watcher, from start to end."""

import stat
from pathlib import Path
from typing import Final

from mlpserve.model.errors import SyncError
from mlpserve.model.sync.local_copy import default_folder
from mlpserve.model.sync.urls import shown
from mlpserve.server.errors import StartError
from mlpserve.server.models.controller import Controller, WorkerPool
from mlpserve.server.models.selection import Rules
from mlpserve.server.models.sync_process import SyncProcess, in_words_of_settings
from mlpserve.server.models.watcher import Watcher
from mlpserve.server.settings.config import WATCH, ServerConfig
from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.snapshots import MetricsSnapshot


class Lifecycle:
    """Has a worker pool serve what the models folder holds, as the settings say.

    Args:
        config: The settings.
        pool: The processes that serve.

    Raises:
        StartError: The models folder is no folder. It may be missing: then it is waited for.
    """

    def __init__(self, config: ServerConfig, pool: WorkerPool) -> None:
        self._sync, models = _folder(config)
        rules = Rules(config.versions, config.default_label, config.default_model)
        self.controller: Final = Controller(
            models, pool, rules, max_version_mb=config.max_version_mb
        )
        self._watcher = Watcher(models, self.controller.reload) if config.reload == WATCH else None

    def start(self) -> None:
        """Serve what is there; return when it is served, and go on looking in the background.

        Raises:
            StartError: The URL of the models, or the folder for the copy of them, cannot be used.
        """
        if self._sync is not None:
            self._sync.start()
        self.controller.reload()
        if self._watcher is not None:
            self._watcher.start()

    def reload(self) -> None:
        """Look now whether there is something else to serve."""
        if self._sync is not None:
            self._sync.look_soon()
        self.controller.reload()

    def metrics(self) -> MetricsSnapshot:
        """Return what is served, and what loading and copying models have met with."""
        restarts = 0 if self._sync is None else self._sync.restarts
        return {**self.controller.metrics(), metrics.SYNC_RESTARTS.name: [([], restarts)]}

    def stop(self) -> None:
        """Change nothing any more."""
        if self._sync is not None:
            self._sync.stop()
        if self._watcher is not None:
            self._watcher.stop()


def _folder(config: ServerConfig) -> tuple[SyncProcess | None, Path]:
    """Return the folder to serve, and what keeps it equal to a store, where one is named."""
    if isinstance(config.models, Path):
        _check_folder(config.models)
        return None, config.models
    try:
        folder = config.cache or default_folder(config.models)
    except SyncError as error:
        raise StartError(in_words_of_settings(str(error))) from error
    sync = SyncProcess(
        config.models,
        folder,
        period_s=config.store_period_s,
        max_version_mb=config.max_version_mb,
    )
    return sync, folder


def _check_folder(models: Path) -> None:
    try:
        is_folder = stat.S_ISDIR(models.stat().st_mode)
    except OSError:
        return  # it may come, or become readable
    if not is_folder:
        raise StartError(f"models: expected a folder, got a file: {shown(models)}")
