"""Isolation of the tests from what they inherit, and from one another: pytest run by a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SUPPORT = Path(__file__).parent / "support"
STRAY = """
import subprocess
from pathlib import Path

def test_that_fails():
    with subprocess.Popen(["sleep", "600"]) as process:
        Path("in_a_block").write_text(str(process.pid))
        assert False

def test_that_forgets():
    # Its parent ends at once, so that nobody has it as a child.
    subprocess.run(["sh", "-c", "sleep 600 & echo $! > forgotten"], check=True)
"""
INHERITED = """
import os
import signal
import subprocess

def test_what_a_program_begins_with():
    status = subprocess.run(
        ["cat", "/proc/self/status"], capture_output=True, text=True, check=True
    ).stdout
    fields = dict(line.split(":", 1) for line in status.splitlines())
    ignored = int(fields["SigIgn"], 16)
    assert not [each for each in (signal.SIGINT, signal.SIGHUP) if ignored >> (each - 1) & 1]
    assert int(fields["SigBlk"], 16) == 0
    assert int(fields["Umask"], 8) == 0o022
    assert "MLPSERVE_PORT" not in os.environ
"""


def run(folder: Path, program: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_it.py").write_text(program)
    # As a shell starts a job in the background, under nohup.
    hostile = ("sh", "-c", 'trap "" INT HUP; umask 077; exec "$@" <&-', "sh")
    return subprocess.run(
        [*hostile, sys.executable, "-m", "pytest", "-q", "-p", "isolation", "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "MLPSERVE_PORT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_program_that_a_test_starts_inherits_nothing_of_the_job_of_pytest(tmp_path: Path) -> None:
    done = run(tmp_path, INHERITED)
    assert done.returncode == 0, done.stdout


def test_a_process_that_is_left_fails_its_test_and_is_killed(tmp_path: Path) -> None:
    done = run(tmp_path, STRAY)
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 error" in done.stdout
    assert "the test left processes running; they were killed: " in done.stdout
    left = [int((tmp_path / name).read_text()) for name in ("in_a_block", "forgotten")]
    assert not any(map(is_running, left))
