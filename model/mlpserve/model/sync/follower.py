"""The thread that keeps the local copy of a store up to date, and what `--models` may name."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mlpserve.model.sync.synchronizer import LARGEST_WEIGHTS_BYTES, Synchronizer
from mlpserve.model.sync.urls import is_url

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 10.0
_STOP_PATIENCE_S: Final = 1.0


def open_models(
    models: Path | str,
    *,
    cache: Path | None = None,
    largest_weights_bytes: int = LARGEST_WEIGHTS_BYTES,
) -> Path | Synchronizer:
    """Return the models folder that a setting names, or the mirror of one in a store.

    Args:
        models: The path of a folder, or a URL: ``s3://bucket/models``.
        cache: Where a mirror keeps its copy; None for a place in the user's cache folder.
        largest_weights_bytes: As of ``Synchronizer``.

    Raises:
        SyncError: As of ``Synchronizer``.
    """
    if isinstance(models, str) and is_url(models):
        return Synchronizer(models, cache, largest_weights_bytes=largest_weights_bytes)
    return Path(models)


class Follower:
    """Looks into a store again and again, in a thread of its own.

    Args:
        mirror: What copies.
        period_s: Seconds between the end of one look and the next.
        on_change: Called, in that thread, after each look that changed the folder.
    """

    def __init__(
        self,
        mirror: Synchronizer,
        *,
        period_s: float,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._mirror = mirror
        self._period_s = period_s
        self._on_change = on_change
        self._has_looked = threading.Event()
        self._stopping = threading.Event()
        self._waking = threading.Event()
        # A store that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self, *, patience_s: float = _PATIENCE_S) -> bool:
        """Start, and wait for the first look to end.

        Args:
            patience_s: Wait for so many seconds at most; the look goes on.

        Returns:
            Whether the look has ended.
        """
        self._thread.start()
        return self._has_looked.wait(patience_s)

    def look_soon(self) -> None:
        """Have the next look come at once, or right after the one under way."""
        self._waking.set()

    def stop(self) -> None:
        """Stop at once, in the midst of a copy too."""
        self._stopping.set()
        self._waking.set()
        self._mirror.stop()
        self._thread.join(_STOP_PATIENCE_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._waking.clear()
            self._look()
            self._has_looked.set()
            self._waking.wait(self._period_s)

    def _look(self) -> None:
        try:
            if self._mirror.sync():
                self._on_change()
        except Exception:
            logger.exception("the look into the store failed; the next one follows")
