"""Templates of the pages: an environment that makes printable, and escapes, what is put in."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from mlpserve.trainer.report.formats import number, percent, printable

if TYPE_CHECKING:
    from jinja2 import Environment

_MAX_LABEL_LETTERS: Final = 40


def render(name: str, **variables: object) -> str:
    """Return a page that needs no other file and no network.

    Args:
        name: The template's file.
        variables: What is put into it.
    """
    style_sheet = Markup(_text("style.css"))  # noqa: S704 - a file of ours
    return _environment().get_template(name).render(style_sheet=style_sheet, **variables)


def shown_label(label: str) -> str:
    """Return what a class is called on a page, where a name must leave room for others."""
    if len(label) > _MAX_LABEL_LETTERS:
        return f"{label[: _MAX_LABEL_LETTERS - 1]}…"
    return label if label.strip() else "(blank)"


@cache
def _environment() -> "Environment":
    # Only where a page is made: it is a seventh of the time that the trainer takes to start.
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        autoescape=True,
        finalize=_finalized,
        loader=FunctionLoader(_text),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment


def _finalized(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
