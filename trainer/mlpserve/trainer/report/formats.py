"""Formats of figures and texts on the page: percentages, counts, times, what may be printed."""

import math
import unicodedata
from collections.abc import Sequence
from typing import Final, TypeAlias

_NONE: Final = "\N{EN DASH}"
_UNPRINTABLE: Final = "\ufffd"

# A caption, what the columns are called, and the rows, whose first cells name them.
Table: TypeAlias = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def percent(share: float | None, *, decimals: int = 2) -> str:
    """Return a share as a percentage; a dash where there is none, None or NaN."""
    if share is None or math.isnan(share):
        return _NONE
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def figure(value: float | None) -> str:
    """Return a number with four decimals; a dash where there is none."""
    return _NONE if value is None else f"{value:.4f}"


def number(value: float) -> str:
    """Return a number with at most two decimals: a hundredth of a pixel is not seen."""
    # Adding 0.0 turns a -0.0 into 0.0.
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def counted(count: int, one: str, many: str) -> str:
    """Return a count with the word for what is counted: "1 image", "1,200 images"."""
    return f"{count:,}\N{NO-BREAK SPACE}{one if count == 1 else many}"


def duration(seconds: float) -> str:
    """Return a time as one reads it: "2.6 s", "3 min 5 s", "25 min", "1 h 2 min"."""
    whole_seconds, whole_minutes = round(seconds), round(seconds / 60)
    if seconds < 60:  # noqa: PLR2004 - a minute
        words = f"{seconds:.1f} s"
    elif seconds < 600:  # noqa: PLR2004 - ten minutes, from which on no second matters
        words = f"{whole_seconds // 60} min {whole_seconds % 60} s"
    elif whole_minutes < 60:  # noqa: PLR2004 - an hour
        words = f"{whole_minutes} min"
    else:
        words = f"{whole_minutes // 60} h {whole_minutes % 60} min"
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def printable(text: str) -> str:
    """Return a text without what HTML may not hold, or what would reorder the text around it."""
    if text.isprintable():
        return text
    # Python counts spaces other than " " among what cannot be printed.
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else _UNPRINTABLE
        for letter in text
    )
