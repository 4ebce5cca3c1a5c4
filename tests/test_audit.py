"""The reports of pip-audit, for which a program stands in here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parent / "support" / "audit.py"
GOOD: dict[str, Any] = {"name": "numpy", "version": "2.0.0", "vulns": []}
BAD: dict[str, Any] = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}],
}
OURS = {"name": "mlpserve", "skip_reason": "distribution marked as editable"}
UNKNOWN = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}


def audited(tmp_path: Path, output: str, errors: str = "") -> tuple[int, str]:
    """Return the exit code, and what is said, where pip-audit says this of everything."""
    program = f"import sys; print({output!r}); print({errors!r}, file=sys.stderr); sys.exit(1)"
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(program)
    command = [sys.executable, str(AUDIT), "constraints.txt", sys.executable, str(stand_in)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_where_nothing_is_known_all_is_well(tmp_path: Path) -> None:
    assert audited(tmp_path, report(GOOD, OURS)) == (
        0,
        "audit: constraints.txt: no vulnerability is known\n"
        "audit: this environment: no vulnerability is known\n",
    )


def test_a_vulnerability_fails_and_is_named_with_what_mends_it(tmp_path: Path) -> None:
    code, said = audited(tmp_path, report(GOOD, BAD))
    assert code == 1
    assert said.splitlines() == ["audit: pillow 1.0: PYSEC-1, mended in 1.1, 2.0"] * 2


def test_a_package_of_which_alone_nothing_is_known_fails(tmp_path: Path) -> None:
    code, said = audited(tmp_path, report(GOOD, UNKNOWN))
    assert code == 1
    assert "audit: rich: Dependency not found on PyPI" in said


@pytest.mark.parametrize(
    ("output", "errors"),
    [
        (report(UNKNOWN, OURS), ""),
        ("", "Traceback\n  ...\nrequests.exceptions.ConnectionError: HTTPSConnectionPool"),
        ("", "Traceback\n  ...\nrequests.exceptions.ProxyError: HTTPSConnectionPool"),
        ("", "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed"),
    ],
    ids=["nothing is found", "no connection", "no proxy", "no time"],
)
def test_where_nobody_can_be_asked_this_is_said_once_and_nothing_fails(
    tmp_path: Path, output: str, errors: str
) -> None:
    code, said = audited(tmp_path, output, errors)
    assert code == 0
    assert said.startswith("audit: left out, nobody could be asked about constraints.txt: ")
    assert len(said.splitlines()) == 1


def test_any_other_failure_is_one(tmp_path: Path) -> None:
    code, said = audited(tmp_path, "", "ValueError: a bug")
    assert code == 1
    assert "pip-audit failed: ValueError: a bug" in said
