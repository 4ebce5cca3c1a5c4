"""Tests of our server that hold for another that keeps the same contract."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def contract(file: str, *, leave_out: Mapping[str, str]) -> dict[str, Any]:
    """Return the names of a file of tests, but for some, to become those of another.

    Its fixtures come along, except the one of the server: that is the other's own.

    Args:
        file: Its path in the folder of tests.
        leave_out: Tests that do not hold for the other server, each with the reason.
    """
    specification = importlib.util.spec_from_file_location(Path(file).stem, TESTS / file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    names = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    beyond = leave_out.keys() - names.keys()
    assert not beyond, f"{file} has no {beyond}"
    return {
        name: value for name, value in names.items() if name not in leave_out and name != "server"
    }
