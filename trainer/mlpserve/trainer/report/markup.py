"""HTML and SVG elements that cannot be left open, and text that cannot become markup.

All text goes into a page through ``element``, which escapes it; so a class called ``<script>`` is
shown, not run.
"""

import html
import unicodedata
from collections.abc import Iterable
from typing import Final, TypeAlias

_VOID_TAGS: Final = frozenset({"br", "img", "meta"})  # those of ours that have no end tag
_UNPRINTABLE: Final = "\ufffd"

Attribute: TypeAlias = str | float | None


class Markup(str):
    """Text that is markup already; all other text is escaped where it is put into an element."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: Attribute) -> Markup:
    """Return an element.

    Args:
        tag: Its name.
        children: What is in it, in order: elements, or text that is to be escaped.
        attributes: Its attributes; an underscore stands for a dash, and one at the end, which keeps
            clear of Python's keywords, for nothing. None leaves an attribute out.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_attribute_text(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID_TAGS:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{joined(children)}</{tag}>")


def joined(children: Iterable[str]) -> Markup:
    """Return elements and texts one after the other, the texts escaped."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(_printable(child), quote=False)
            for child in children
        )
    )


def number(value: float) -> str:
    """Return a number with at most two decimals: a hundredth of a pixel is not seen."""
    # Adding 0.0 turns a -0.0 into 0.0.
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _attribute_text(value: str | float) -> str:
    return _printable(value) if isinstance(value, str) else number(value)


def _printable(text: str) -> str:
    """Return a text without what HTML may not hold, or what would reorder the text around it."""
    if text.isprintable():
        return text
    # Python counts spaces other than " " among what cannot be printed.
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else _UNPRINTABLE
        for letter in text
    )
