"""Writes what tests of faults have measured into the table of ``docs/faults.md``; `make faults`.

A plug-in of pytest: with ``--fault-table FILE`` the table in that file is made of this run's rows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

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
_ROWS: Final = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag."""
    parser.addoption(_OPTION, type=Path, help="document whose table of faults is to be made anew")


def pytest_configure(config: pytest.Config) -> None:
    """Begin without rows."""
    config.stash[_ROWS] = []


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the table, if all tests have passed."""
    document: Path | None = session.config.getoption(_OPTION)
    if document is None or exitstatus != 0:
        return
    before, _, rest = document.read_text().partition(_BEGIN)
    table = "\n".join((*_HEAD, *session.config.stash[_ROWS]))
    document.write_text(f"{before}{_BEGIN}{table}\n{_END}{rest.partition(_END)[2]}")


@pytest.fixture
def note_fault(request: pytest.FixtureRequest) -> NoteFault:
    """Return a function that notes a fault, what became of the calls meanwhile, and what it did."""

    def note(fault: str, figures: Figures, outcome: str) -> None:
        sent, failed, wrong, lost, longest_s = figures
        place = request.node.nodeid.partition("[")[0].removeprefix("tests/server/faults/")
        counts = f"{sent:,} | {failed:,} | {wrong} | {lost} | {longest_s:.2f}"
        row = f"| {fault} | {counts} | {outcome} | `{place}` |"
        request.config.stash[_ROWS].append(row)
        print(row)  # noqa: T201 - shown where the test fails, and by -s

    return note
