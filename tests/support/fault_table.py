"""Writes what tests of faults have measured into the table of ``docs/faults.md``; `make faults`.

A plug-in of pytest: with ``--fault-table FILE`` the rows of this run replace those of the same
tests in the table of that file. Rows of tests that fail, or are left out, stay as they are; which
they are is said at the end of the run, and its exit code is pytest's.
"""

from collections.abc import Callable, Sequence
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
_FAILED: Final = pytest.StashKey[set[str]]()
_LEFT_OUT: Final = pytest.StashKey[set[str]]()


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
    config.stash[_FAILED] = set()
    config.stash[_LEFT_OUT] = set()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Note tests that are left out."""
    for item in items:
        item.config.stash[_LEFT_OUT].add(_place_of(item.nodeid))


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Forget the rows of a test that fails: those of its last good run stay in the table."""
    if call.excinfo is None:
        return
    rows = item.config.stash[_ROWS]
    rows[:] = [row for row in rows if row.test != item.nodeid]
    stash, place = item.config.stash, _place_of(item.nodeid)
    if call.excinfo.errisinstance(pytest.skip.Exception):
        stash[_LEFT_OUT].add(place)
    else:
        stash[_FAILED].add(place)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put the rows of the tests that have passed in the place of theirs before."""
    stash = session.config.stash
    document: Path | None = session.config.getoption(_OPTION)
    if document is None or not stash[_ROWS]:
        return
    failed: set[str] = stash[_FAILED]
    left_out: set[str] = stash[_LEFT_OUT]
    before, _, rest = document.read_text().partition(_BEGIN)
    old, _, after = rest.partition(_END)
    lines = _merged(
        old.splitlines()[len(_HEAD) :],
        [row.line for row in stash[_ROWS]],
        incomplete=failed | left_out,
    )
    table = "\n".join((*_HEAD, *lines))
    document.write_text(f"{before}{_BEGIN}{table}\n{_END}{after}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what has become of the table."""
    document: Path | None = config.getoption(_OPTION)
    if document is None:
        return
    terminalreporter.section(str(document))
    terminalreporter.line(f"rows made anew: {len(config.stash[_ROWS])}")
    failed: set[str] = config.stash[_FAILED]
    for place in sorted(failed):
        terminalreporter.line(f"failed, so that its rows before are kept: {place}")


def _merged(old: Sequence[str], new: Sequence[str], *, incomplete: set[str]) -> list[str]:
    """Return the new lines, and those old ones that they do not replace.

    Args:
        old: The lines of the table.
        new: Those of tests that have passed.
        incomplete: Tests not all cases of which have; of them, a new line replaces that of the same
            fault only.
    """
    places, faults = {_place(line) for line in new}, {_fault(line) for line in new}
    kept = [
        line
        for line in old
        if _is_there(_place(line))
        and (_place(line) not in places or _place(line) in incomplete)
        and _fault(line) not in faults
    ]
    return sorted([*kept, *new], key=lambda line: _place(line).partition("::")[0])


def _place(line: str) -> str:
    """Return the test of a line: its last cell."""
    return line.rpartition(" | `")[2].removesuffix("` |")


def _fault(line: str) -> tuple[str, str]:
    """Return the test of a line, and its first cell."""
    return _place(line), line.removeprefix("| ").partition(" | ")[0]


def _place_of(test: str) -> str:
    """Return a test's id as the table has it, which is the same for all of its cases."""
    return test.partition("[")[0].removeprefix(_FOLDER)


def _is_there(place: str) -> bool:
    file, _, name = place.partition("::")
    path = Path(_FOLDER) / file
    return path.is_file() and f"def {name}(" in path.read_text()


@pytest.fixture
def note_fault(request: pytest.FixtureRequest) -> NoteFault:
    """Return a function that notes a fault, what became of the calls meanwhile, and what it did."""

    def note(fault: str, figures: Figures, outcome: str) -> None:
        sent, failed, wrong, lost, longest_s = figures
        place = _place_of(request.node.nodeid)
        counts = f"{sent:,} | {failed:,} | {wrong} | {lost} | {longest_s:.2f}"
        row = f"| {fault} | {counts} | {outcome} | `{place}` |"
        request.config.stash[_ROWS].append(_Row(request.node.nodeid, row))
        print(row)  # noqa: T201 - shown where the test fails, and by -s

    return note
