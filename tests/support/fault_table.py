"""Writes what tests of faults have measured into the table of ``docs/faults.md``; `make faults`.

A plug-in of pytest: with ``--fault-table FILE`` the rows of this run replace those of the same
tests in the table of that file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from steady_load import Figures

NoteFault = Callable[[str, Figures, str], None]

_OPTION: Final = "--fault-table"
_BEGIN: Final = "<!-- faults: begin -->\n"
_END: Final = "<!-- faults: end -->\n"
_HEAD: Final = (
    "| fault | sent | failed | wrong | lost | longest, s | what came of it | test |",
    "|---|--:|--:|--:|--:|--:|---|---|",
)
_FOLDER: Final = "tests/server/faults/"
_ROWS: Final = pytest.StashKey["list[_Row]"]()


class _Row(NamedTuple):
    """A line of the table, and the id of the test that made it."""

    test: str
    line: str


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag."""
    parser.addoption(_OPTION, type=Path, help="document whose table of faults is to be made anew")


def pytest_configure(config: pytest.Config) -> None:
    """Begin without rows."""
    config.stash[_ROWS] = []


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Forget the rows of a test that fails: those of its last good run stay in the table."""
    if call.excinfo is not None:
        rows = item.config.stash[_ROWS]
        rows[:] = [row for row in rows if row.test != item.nodeid]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put the rows of the tests that have passed in the place of theirs before."""
    document: Path | None = session.config.getoption(_OPTION)
    rows = session.config.stash[_ROWS]
    if document is None or not rows:
        return
    before, _, rest = document.read_text().partition(_BEGIN)
    old, _, after = rest.partition(_END)
    lines = _merged(old.splitlines()[len(_HEAD) :], [row.line for row in rows])
    table = "\n".join((*_HEAD, *lines))
    document.write_text(f"{before}{_BEGIN}{table}\n{_END}{after}")


def _merged(old: list[str], new: list[str]) -> list[str]:
    """Return the new lines, and the old ones of tests that are there yet and have none of them."""
    made = {_place(line) for line in new}
    kept = [line for line in old if _place(line) not in made and _is_there(_place(line))]
    return sorted(kept + new, key=lambda line: _place(line).partition("::")[0])


def _place(line: str) -> str:
    """Return the test of a line: its last cell."""
    return line.rpartition(" | `")[2].removesuffix("` |")


def _is_there(place: str) -> bool:
    file, _, name = place.partition("::")
    path = Path(_FOLDER) / file
    return path.is_file() and f"def {name}(" in path.read_text()


@pytest.fixture
def note_fault(request: pytest.FixtureRequest) -> NoteFault:
    """Return a function that notes a fault, what became of the calls meanwhile, and what it did."""

    def note(fault: str, figures: Figures, outcome: str) -> None:
        sent, failed, wrong, lost, longest_s = figures
        place = request.node.nodeid.partition("[")[0].removeprefix(_FOLDER)
        counts = f"{sent:,} | {failed:,} | {wrong} | {lost} | {longest_s:.2f}"
        row = f"| {fault} | {counts} | {outcome} | `{place}` |"
        request.config.stash[_ROWS].append(_Row(request.node.nodeid, row))
        print(row)  # noqa: T201 - shown where the test fails, and by -s

    return note
