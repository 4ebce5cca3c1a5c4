"""Markdown: tables, and the marked section of a file that a benchmark fills."""

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.errors import BenchmarkError


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, the columns padded so that it can be read as it stands."""
    lines = [headings, *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in [headings, rule, *rows]
    )


def section(name: str, content: str) -> str:
    """Return ``content`` between the two lines that mark a section of a document."""
    begin, end = _marks(name)
    return f"{begin}\n{content}\n{end}\n"


def with_section(document: str, name: str, content: str) -> str:
    """Return a document whose section of that name holds ``content`` instead of what it held.

    Raises:
        BenchmarkError: It has no such section.
    """
    begin, end = map(re.escape, _marks(name))
    marked = re.compile(f"{begin}\n.*?{end}\n", re.DOTALL)
    if not marked.search(document):
        raise BenchmarkError(
            f"expected the lines {' and '.join(_marks(name))} in a file that is there already; "
            "name a new file, or one with these"
        )
    # As a function, so that a backslash in the content is one.
    return marked.sub(lambda _: section(name, content), document, count=1)


def section_of(document: str, name: str) -> str:
    """Return what a document's section of that name holds; nothing where it has none."""
    begin, end = _marks(name)
    return document.partition(begin)[2].partition(end)[0]


def check_output(path: Path, name: str) -> None:
    """Find out before the work whether its results can be written.

    Raises:
        BenchmarkError: The path is neither ``.md`` nor ``.json``, its folder is missing, or it is a
            Markdown file without the section.
    """
    if path.suffix not in {".md", ".json"}:
        raise BenchmarkError(f"{path}: expected a name that ends in .md or .json")
    if not path.parent.is_dir():
        raise BenchmarkError(f"{path}: there is no folder {path.parent}")
    if path.suffix == ".md" and path.exists():
        try:
            with_section(path.read_text(), name, "")
        except BenchmarkError as error:
            raise BenchmarkError(f"{path}: {error}") from error


def write_section(path: Path, name: str, content: str) -> None:
    """Write ``content`` into its section of a Markdown file, which is made if there is none."""
    if path.exists():
        write_whole(path, with_section(path.read_text(), name, content))
    else:
        write_whole(path, section(name, content))


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(temporary).chmod(0o644)  # a temporary file is its owner's alone
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
