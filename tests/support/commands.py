"""Commands of ours as tests read them: what one has said, or why it has failed."""

import subprocess
from typing import TypeAlias

Done: TypeAlias = subprocess.CompletedProcess[str]


def lines(done: Done) -> list[str]:
    """Return what a command that went well has said."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def refusal(done: Done, program: str = "mlpserve-models") -> str:
    """Return the sentence of a command that has failed."""
    assert done.returncode == 1
    assert done.stderr.startswith(f"{program}: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix(f"{program}: ").rstrip("\n")
