"""The blocks that a page is built of, and how figures are written in them."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from mlpserve.trainer.report.markup import Markup, element, joined

_NONE: Final = "\N{EN DASH}"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table whose first column names its rows, in a box that scrolls where it is wide."""
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    return scrolling(
        caption,
        element(
            "table",
            element("caption", caption),
            element("thead", head),
            element("tbody", *(_row(row) for row in rows)),
        ),
    )


def _row(texts: Sequence[str]) -> Markup:
    name, *others = texts
    return element(
        "tr", element("th", name, scope="row"), *(element("td", text) for text in others)
    )


def scrolling(label: str, content: Markup) -> Markup:
    """Return a box that scrolls sideways, with the keyboard too, where its content is wide."""
    return element(
        "div", content, class_="scrolling", tabindex="0", role="region", aria_label=label
    )


def folded(summary: str, content: Markup) -> Markup:
    """Return what is shown only when it is asked for."""
    return element("details", element("summary", summary), content)


def percent(share: float | None, *, decimals: int = 2) -> str:
    """Return a share as a percentage; a dash where there is none, None or NaN."""
    if share is None or math.isnan(share):
        return _NONE
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def figure(value: float | None) -> str:
    """Return a number with four decimals; a dash where there is none."""
    return _NONE if value is None else f"{value:.4f}"


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


def section(title: str, *content: str) -> Markup:
    """Return a part of the page under a heading of its own; an empty text in it is left out."""
    kept = (part for part in content if part)
    return element("section", element("h2", title), joined(kept))


def paragraph(*content: str) -> Markup:
    """Return a paragraph."""
    return element("p", *content)


def captioned(title: str, content: Markup) -> Markup:
    """Return a chart below its title."""
    return element("figure", element("figcaption", title), content)
