"""Environment of a server's processes, which threads of any library may read at any time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

# Python imports it at its start, where it is found.
SITE = """
import os
import sys


def hook(event, arguments):
    if event in {"os.putenv", "os.unsetenv"}:
        threads = len(sys._current_frames())
        with open(os.path.join(os.path.dirname(__file__), "changes"), "a") as file:
            file.write(f"{threads} {arguments[0].decode()}\\n")


sys.addaudithook(hook)
"""


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.exhaustive), "2"])
def test_no_process_changes_its_environment_once_it_has_threads(
    run_server: Callable[..., AbstractContextManager[Any]],
    publish: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: str,
) -> None:
    publish("tiny", versions=1)
    (tmp_path / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:9")
    other_ports = ("--http-port", "0", "--metrics-port", "0", "--tracing")
    with run_server("--workers", workers, *other_ports) as running:
        running.stop()
    changes = (tmp_path / "changes").read_text().splitlines()
    assert "1 GRPC_VERBOSITY" in changes
    assert [change for change in changes if not change.startswith("1 ")] == []
