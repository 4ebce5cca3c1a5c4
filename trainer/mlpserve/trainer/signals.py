"""Stop signals of a run.

SIGINT comes from Ctrl-C, SIGTERM from whatever manages jobs, SIGHUP from a terminal that is closed.
As process 1 of a container a program has no default action for any of them, so all are handled
here.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_WORDS: Final = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}
_CODE_OF_SIGNAL_0: Final = 128  # shells give 128 and the number of the signal


class EndedBySignal(SystemExit):
    """Ends the program with the code that shells have for a signal, unless it is caught.

    Attributes:
        exit_code: That code.
        word: What happened.
    """

    def __init__(self, number: int) -> None:
        self.exit_code = _CODE_OF_SIGNAL_0 + number
        super().__init__(self.exit_code)
        self.word = _WORDS[signal.Signals(number)]


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
        """Take the signals from now on."""
        for number in _WORDS:
            # ``nohup`` has it ignored, so that a run outlives its terminal.
            is_kept = number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
            if not is_kept:
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
        # Nothing is printed here: whoever was interrupted may be in the middle of that.
        raise EndedBySignal(number)
