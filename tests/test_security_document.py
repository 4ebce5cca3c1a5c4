"""docs/security.md names tests for each threat; pytest must find them."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TEST = re.compile(r"`(tests/\S+?\.py::test_\w+)`")


def proofs() -> dict[str, list[str]]:
    """Return the tests that the table names, by the threat."""
    text = (REPOSITORY / "docs" / "security.md").read_text()
    _, _, table = text.partition("| threat | what is done | proven by |\n|---|---|---|\n")
    rows = [row.strip("| ").split(" | ") for row in table.partition("\n\n")[0].splitlines()]
    return {threat: TEST.findall(proof) for threat, _, proof in rows}


def test_each_threat_in_the_table_names_tests() -> None:
    found = proofs()
    assert len(found) > 40
    assert [threat for threat, tests in found.items() if not tests] == []


def test_pytest_finds_each_test_that_the_table_names() -> None:
    named = sorted({test for tests in proofs().values() for test in tests})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *named], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
    assert sorted(collected) == named
