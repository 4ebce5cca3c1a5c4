"""Output that nobody has to take: a reader that is gone must not end what it only watched."""

import io
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def unfailing(stream: TextIO) -> TextIO:
    """Return a stream to the same place that drops what cannot be written any more.

    So a pipe whose reader has ended, or a terminal that was closed, is as good as ``/dev/null``.
    """
    raw = _Unfailing(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
    )


class _Unfailing(io.FileIO):
    def write(self, content: "ReadableBuffer", /) -> int:
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes
