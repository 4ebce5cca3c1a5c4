"""How a run is told to stop: SIGINT, from Ctrl-C, and SIGTERM, from whatever manages jobs.

As process 1 of a container a program has no default action for either, so both are handled here.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_WORDS: Final = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_CODE_OF_SIGNAL_0: Final = 128  # shells give 128 and the number of the signal


class StopSignals:
    """Ends the program at a signal, or where there is something to save, makes a note of it.

    A second signal ends it at once in any case.

    Attributes:
        is_stop_wanted: Whether a signal came while it was only noted.
    """

    def __init__(self) -> None:
        self.is_stop_wanted = False
        self._is_noted_only = False

    def install(self) -> None:
        """Take the two signals from now on."""
        for number in _WORDS:
            signal.signal(number, self._handle)

    @contextmanager
    def noted_only(self) -> Iterator[None]:
        """Only note the first signal, for as long as the block runs."""
        self._is_noted_only = True
        try:
            yield
        finally:
            self._is_noted_only = False

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python's form
        if self._is_noted_only and not self.is_stop_wanted:
            self.is_stop_wanted = True
            return
        print(f"mlpserve-train: {_WORDS[signal.Signals(number)]}", file=sys.stderr)
        sys.exit(_CODE_OF_SIGNAL_0 + number)
