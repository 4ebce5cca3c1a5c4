"""The server's log: lines on a terminal, JSON elsewhere.

Whatever becomes of what is written, the server serves on: lines that cannot be written, because the
disk is full, the reader gone or slow, are dropped and counted. For this they are written by a
thread of their own, which nobody waits for.
"""

import logging
import os
import sys
from collections.abc import Mapping
from queue import Full, Queue
from threading import Event, Thread
from typing import Final

from mlpserve.model.command_line import DETAILS, JsonFormatter, TextFormatter

_MOST_WAITING: Final = 1000  # lines
_LAST_WORDS_S: Final = 1.0
_STANDARD_ERROR: Final = 2  # its descriptor


def log_to_stderr(log_format: str = "auto", level: str = "info") -> None:
    """Log to standard error, a line an event.

    Args:
        log_format: text, json, or auto, which is text on a terminal, else JSON.
        level: The lowest that is written, in lower case; of other libraries at least info.
    """
    logging.getLogger("mlpserve").setLevel(level.upper())
    # What other libraries say when they are debugged may hold the secrets that they were given.
    logging.root.setLevel(max(logging.INFO, getattr(logging, level.upper())))
    if sys.stderr is None:  # it is closed; its descriptor may be another file's by now
        return
    is_json = log_format == "json" or (log_format == "auto" and not os.isatty(_STANDARD_ERROR))
    handler = BackgroundHandler(_STANDARD_ERROR)
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    logging.root.addHandler(handler)
    # It logs each change of a file, which says nothing of what becomes of it.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


def details(**facts: object) -> dict[str, Mapping[str, object]]:
    """Return the ``extra`` of a log call: facts for programs, beside the words for people."""
    return {DETAILS: facts}


def lines_dropped() -> int:
    """Return how many lines of this process's log were dropped."""
    return sum(
        handler.lines_dropped
        for handler in logging.root.handlers
        if isinstance(handler, BackgroundHandler)
    )


class BackgroundHandler(logging.Handler):
    """Has lines written by a thread of its own, and drops those that it cannot write.

    Args:
        descriptor: Where to write.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.lines_dropped = 0
        self._descriptor = descriptor
        self._waiting: Queue[bytes | Event] = Queue(_MOST_WAITING)
        Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a line written, some time soon."""
        try:
            self._waiting.put_nowait(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Full:
            self.lines_dropped += 1
        except Exception:  # noqa: BLE001 - no line is worth more than what it tells of
            self.lines_dropped += 1

    def flush(self) -> None:
        """Wait, though not for long, until all is written that was logged so far."""
        written = Event()
        try:
            self._waiting.put(written, timeout=_LAST_WORDS_S)
        except Full:
            return
        written.wait(_LAST_WORDS_S)

    def _write_all(self) -> None:
        while True:
            line = self._waiting.get()
            if isinstance(line, Event):
                line.set()
            else:
                self._write(line)

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            self.lines_dropped += 1
