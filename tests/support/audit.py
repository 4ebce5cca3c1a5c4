"""Asks whether vulnerabilities are known of what the images install, and of this environment.

    python audit.py constraints.txt [PIP-AUDIT...]

Fails where there are some, and where something went wrong. Where the network does not let anybody
ask, it says so and fails nothing: no news of a package is no reason to stop work on another.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

_OUR_AUDIT: Final = (sys.executable, "-m", "pip_audit")
_FAILED: Final = 1
# What pip-audit, or what it asks with, ends with where nobody answers.
_UNREACHABLE: Final = ("ConnectionError", "ConnectTimeout", "ProxyError", "SSLError", "Timeout")


class UnreachableError(Exception):
    """Nobody could be asked."""


def main(arguments: Sequence[str]) -> int:
    """Audit both; return the exit code."""
    constraints, *command = arguments
    audit = command or _OUR_AUDIT
    subjects = {
        constraints: ["--requirement", constraints, "--no-deps", "--disable-pip"],
        "this environment": ["--local", "--skip-editable"],
    }
    problems = 0
    for name, flags in subjects.items():
        try:
            found = _findings(_report([*audit, "--format", "json", *flags]))
        except UnreachableError as error:
            print(f"audit: left out, nobody could be asked about {name}: {error}")
            break
        print(*(found or [f"audit: {name}: no vulnerability is known"]), sep="\n")
        problems += len(found)
    return _FAILED if problems else 0


def _report(command: Sequence[str]) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        kind = last.partition(": ")[0]
        if kind.endswith(_UNREACHABLE) or "Could not connect" in last:
            raise UnreachableError(last) from None
        raise RuntimeError(f"pip-audit failed: {done.stderr}") from None
    return packages


def _findings(packages: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each vulnerability, and for each package of which nothing is known."""
    skipped = [each for each in packages if "skip_reason" in each and not _is_own(each)]
    if len(skipped) == len([each for each in packages if not _is_own(each)]):
        raise UnreachableError(skipped[0]["skip_reason"] if skipped else "there is no package")
    known = [
        f"audit: {each['name']} {each['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no release'}"
        for each in packages
        for found in each.get("vulns", ())
    ]
    return known + [f"audit: {each['name']}: {each['skip_reason']}" for each in skipped]


def _is_own(package: dict[str, Any]) -> bool:
    return bool(package["name"] == "mlpserve")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
