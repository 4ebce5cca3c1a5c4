"""Follower: synchronizes again and again, in a thread of its own."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from mlpserve.model.sync.synchronizer import Synchronizer

logger = logging.getLogger(__name__)

_STOP_TIMEOUT_S: Final = 1.0


class Follower:
    """Looks into a store at once, and then again and again.

    Args:
        synchronizer: What copies.
        period_s: Seconds between the end of one look and the next.
        on_look: Called, in that thread, after each look.
    """

    def __init__(
        self, synchronizer: Synchronizer, *, period_s: float, on_look: Callable[[], object]
    ) -> None:
        self._synchronizer = synchronizer
        self._period_s = period_s
        self._on_look = on_look
        self._stopping = threading.Event()
        self._waking = threading.Event()
        # A store that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin the first look."""
        self._thread.start()

    def look_soon(self) -> None:
        """Have the next look come at once, or right after the one under way."""
        self._waking.set()

    def stop(self) -> bool:
        """Stop at once, in the midst of a copy too.

        Returns:
            Whether the thread has ended; False where the store keeps it waiting.
        """
        self._stopping.set()
        self._waking.set()
        self._synchronizer.stop()
        self._thread.join(_STOP_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._waking.clear()
            try:
                self._synchronizer.sync()
            except Exception:
                logger.exception("the look into the store failed; the next one follows")
            self._on_look()
            self._waking.wait(self._period_s)
