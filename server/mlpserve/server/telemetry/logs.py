"""The server's log: lines on a terminal, JSON elsewhere.

Whatever becomes of what is written, the server serves on: lines that cannot be written, because the
disk is full, the reader gone or slow, are dropped and counted. For this they are written by a
thread of their own, which nobody waits for.
"""

import logging
import os
import sys
from collections.abc import Mapping
from logging.handlers import QueueHandler, QueueListener
from queue import Queue
from typing import Final

from mlpserve.model.command_line import DETAILS, JsonFormatter, TextFormatter
from mlpserve.server.telemetry.rate_limit import RateLimit

logger = logging.getLogger(__name__)

_MAX_WAITING: Final = 1000  # lines
_FLUSH_TIMEOUT_S: Final = 1.0
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
    handler.addFilter(LibraryLimit())
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


class LibraryLimit(logging.Filter):
    """Lets pass all lines of ours, and so many a second of each logger of a library.

    What libraries log is up to whoever connects: uvicorn has a line for each request that is no
    HTTP, asyncio one for each connection that it has no descriptor for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._limits: dict[str, RateLimit] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written."""
        name = record.name
        if name.partition(".")[0] == "mlpserve":
            return True
        if name not in self._limits:
            self._limits[name] = RateLimit(lambda count: logger.warning("%s: %d more", name, count))
        return self._limits[name].allows()


class BackgroundHandler(QueueHandler):
    """Handler that has lines written in the background, and drops those that cannot be.

    Args:
        descriptor: Where to write.
    """

    queue: "Queue[logging.LogRecord]"

    def __init__(self, descriptor: int) -> None:
        super().__init__(Queue(_MAX_WAITING))
        self._writer = _Writer(self.queue, descriptor)
        self._writer.start()

    @property
    def lines_dropped(self) -> int:
        """Return how many lines were dropped so far."""
        return self._writer.lines_dropped

    def handleError(self, _: logging.LogRecord) -> None:
        """Drop a line that cannot be made, or for which there is no room."""
        self._writer.lines_dropped += 1

    def flush(self) -> None:
        """Wait, though not for long, until all is written that was logged so far."""
        done = self.queue.all_tasks_done
        with done:
            done.wait_for(lambda: not self.queue.unfinished_tasks, _FLUSH_TIMEOUT_S)


class _Writer(QueueListener):
    def __init__(self, queue: "Queue[logging.LogRecord]", descriptor: int) -> None:
        super().__init__(queue)
        self.lines_dropped = 0
        self._descriptor = descriptor

    def handle(self, record: logging.LogRecord) -> None:
        line = f"{record.msg}\n".encode(errors="backslashreplace")
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            self.lines_dropped += 1
