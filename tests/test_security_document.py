"""docs/security.md names tests for each threat; they must be there."""

import ast
import re
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


def test_each_test_that_the_table_names_is_there() -> None:
    named = sorted({test for tests in proofs().values() for test in tests})
    assert [test for test in named if not is_there(*test.split("::"))] == []


def is_there(file: str, name: str) -> bool:
    """Return whether a file has a test of its module's own that pytest would collect."""
    path = REPOSITORY / file
    if not path.exists():
        return False
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse(path.read_text()).body
    return any(isinstance(each, functions) and each.name == name for each in body)
