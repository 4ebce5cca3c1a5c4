"""Output streams that never fail: a reader that is gone must not end what it only watched."""

import io
import os
from typing import TextIO


def unfailing(stream: TextIO) -> TextIO:
    """Return a stream to the same place that drops what cannot be written any more.

    So a pipe whose reader has ended, a terminal that was closed or a full disk is as good as
    ``/dev/null``, which from then on takes its place.
    """
    raw = io.FileIO(stream.fileno(), "w", closefd=False)
    return _Unfailing(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
    )


class _Unfailing(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            self._write_to_nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._write_to_nowhere()

    def _write_to_nowhere(self) -> None:
        # What is still held back goes there too, or it would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
