"""The table of faults: whose rows a run replaces, and whose it keeps; pytest run by a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.exhaustive

SUPPORT = Path(__file__).parent / "support"
DOCUMENT = """Faults.
<!-- faults: begin -->
| fault | sent | failed | wrong | lost | longest, s | what came of it | test |
|---|--:|--:|--:|--:|--:|---|---|
| a kill | 1 | 0 | 0 | 0 | 0.10 | old | `test_it.py::test_cases` |
| a flood | 1 | 0 | 0 | 0 | 0.10 | old | `test_it.py::test_cases` |
| old words | 1 | 0 | 0 | 0 | 0.10 | old | `test_it.py::test_good` |
| what failed | 1 | 0 | 0 | 0 | 0.10 | old | `test_it.py::test_bad` |
| what is no more | 1 | 0 | 0 | 0 | 0.10 | old | `test_it.py::test_gone` |
<!-- faults: end -->
The end.
"""
PROGRAM = """
import pytest

from steady_load import Figures

FIGURES = Figures(2000, 0, 0, 0, 0.5)

@pytest.mark.parametrize("fault", ["a kill", "a flood"])
def test_cases(note_fault, fault):
    note_fault(fault, FIGURES, "new")
    assert fault != "a flood"

def test_good(note_fault):
    note_fault("new words", FIGURES, "new")

def test_bad(note_fault):
    note_fault("what failed", FIGURES, "new")
    assert False
"""


def run(folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Return the exit code, what is said, and fault and outcome of each row."""
    tests = folder / "tests" / "server" / "faults"
    tests.mkdir(parents=True)
    (tests / "test_it.py").write_text(PROGRAM)
    (folder / "faults.md").write_text(DOCUMENT)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "fault_table", "tests/server/faults"]
    done = subprocess.run(
        [*command, "--fault-table", "faults.md", "--import-mode=importlib", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    text = (folder / "faults.md").read_text()
    assert text.startswith("Faults.\n<!-- faults: begin -->\n| fault |")
    assert text.endswith("<!-- faults: end -->\nThe end.\n")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[4:-2]]
    return done.returncode, done.stdout, [f"{row[0]}: {row[6]}" for row in rows]


def test_a_failed_case_keeps_its_row_and_the_run_says_so(tmp_path: Path) -> None:
    code, said, rows = run(tmp_path)
    assert code == 1
    assert sorted(rows) == ["a flood: old", "a kill: new", "new words: new", "what failed: old"]
    assert "rows made anew: 2" in said
    for test in ("test_bad", "test_cases"):
        assert f"failed, so that its rows before are kept: test_it.py::{test}" in said


def test_what_is_left_out_keeps_its_rows(tmp_path: Path) -> None:
    code, _, rows = run(tmp_path, "-k", "kill")
    assert code == 0
    assert sorted(rows) == ["a flood: old", "a kill: new", "old words: old", "what failed: old"]
