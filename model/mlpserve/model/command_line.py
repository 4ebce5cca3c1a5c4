"""The habits of our commands: exit codes, error lines, paths, output that may end early, logs."""

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mlpserve.model.errors import ModelError

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
DETAILS: Final = "details"  # the attribute of log records that carries facts for programs
_GAP: Final = "  "


class NoHomeError(ModelError, argparse.ArgumentTypeError):
    """A path begins in the home folder, and there is none."""


class OutputError(Exception):
    """Standard output cannot be written; the message says why."""


class CommandError(Exception):
    """A command has failed for a reason of another part's; the message says what to do."""


def failed(program: str, message: str, code: int = EXIT_FAILED) -> int:
    """Print why a program ends, each line after the program's name; return its exit code."""
    for line in message.splitlines() or [""]:
        print(f"{program}: {line}", file=sys.stderr)
    return code


def user_path(text: str) -> Path:
    """Return a path; ``~`` at its beginning is the home folder, and ``~name`` that of a user.

    All paths that are given by flag, variable or file are read by this, or by its twin in
    ``mlpserve.datasets.paths``, because neither part may import the other.

    Raises:
        NoHomeError: There is no home folder.
    """
    if text.partition("/")[0] == "~" and not _has_home():
        raise NoHomeError(
            f"{text!r}: there is no home folder, because HOME is empty, or is not set for a user "
            "without a name; give the path in full"
        )
    return Path(os.path.expanduser(text))  # noqa: PTH111 - leaves the ~name of nobody as it is


def _has_home() -> bool:
    # Of a user whom the system does not know, as in a container, nothing is expanded; and an empty
    # variable would make the root folder of it.
    return os.environ.get("HOME") != "" and os.path.expanduser("~").startswith("/")  # noqa: PTH111


@contextmanager
def standard_output() -> Iterator[None]:
    """Write to standard output within the block.

    A sign that its encoding does not have is written as its number. A reader that has had enough,
    as ``head`` has, ends the block, and is no failure.

    Raises:
        OutputError: It is closed, or cannot be written, because the disk is full for example.
    """
    if sys.stdout is None:
        raise OutputError("the output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # What Python still holds back would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"the output cannot be written: {error.strerror}") from error


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they come.

    Raises:
        OutputError: As for ``standard_output``.
    """
    with standard_output():
        for line in lines:
            print(line, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, its columns aligned to the left.

    The last column is not filled up, so that a sentence in it makes no other line longer.

    Args:
        header: What the columns are called.
        rows: As many cells each as there are columns.
    """
    cells = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        filled = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield _GAP.join(filled).rstrip()


def printable(text: str) -> str:
    """Return a text with what would move a terminal's cursor, or change its colours, escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def percent(share: float | None) -> str:
    """Return a share, from 0 to 1, in percent; a dash for one that is not known."""
    return "-" if share is None else f"{100 * share:.2f} %"


class TextFormatter(logging.Formatter):
    """Writes events for people; an event is a line, but for a traceback, indented after it.

    Whatever is in it begins no line of its own, and does nothing to a terminal.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: ANN401 - as logging has it
        """Return the traceback."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)


class JsonFormatter(logging.Formatter):
    """Writes each event as an object of JSON on a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            "process": record.process,
            **getattr(record, DETAILS, {}),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)
