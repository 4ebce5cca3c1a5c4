"""docs/security.md names a test for each threat; they must be there."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NAMED = re.findall(r"`(tests/\S+?)::(test_\w+)`", (REPOSITORY / "docs" / "security.md").read_text())


def test_the_table_names_tests() -> None:
    assert len(NAMED) > 15


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_each_test_that_the_table_of_threats_names_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (REPOSITORY / file).read_text()
