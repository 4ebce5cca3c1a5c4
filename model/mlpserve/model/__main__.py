"""The command `mlpserve-models`: flags in, lines and an exit code out."""

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from mlpserve.model.commands.flags import parser
from mlpserve.model.errors import ModelError

_EXIT_FAILED: Final = 1
_EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


class _OutputError(Exception):
    """A line cannot be written; the cause says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    0 where all was done, 1 for what failed, 2 for flags that do not exist, and 130 where it was
    interrupted.
    """
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A sign that the output's encoding does not have is written as its number.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _print(options.run(options))
    except ModelError as error:
        return _fail(str(error))
    except _OutputError as error:
        return _output_ended(error.__cause__)
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    return 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        try:
            print(line, flush=True)
        except OSError as error:
            raise _OutputError from error


def _output_ended(cause: BaseException | None) -> int:
    # What Python still holds back would fail once more at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # Whoever read our output has had enough, as `head` has; that is no failure.
    if isinstance(cause, BrokenPipeError):
        return 0
    return _fail(f"the output cannot be written: {getattr(cause, 'strerror', cause)}")


def _fail(message: str) -> int:
    print(f"mlpserve-models: {message}", file=sys.stderr)
    return _EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
