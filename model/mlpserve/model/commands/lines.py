"""Text for a terminal: aligned tables, and what files say without its control characters."""

from collections.abc import Iterator, Sequence
from typing import Final

_GAP: Final = "  "


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
