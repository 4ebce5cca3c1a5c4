"""Fixtures for tests of the trainer's commands: small data, and the command as a process."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from small_data import save_thirds
from warm_parent import WarmParent


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small .npz with three classes that differ in which third of the image is bright."""
    return save_thirds(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def warm_trainer() -> Iterator[WarmParent]:
    """Return what runs the trainer's commands, without their imports for each."""
    modules = ["mlpserve.trainer.__main__", "mlpserve.trainer.report.page", "compiled_templates"]
    with WarmParent(modules) as parent:
        yield parent


@pytest.fixture
def train(
    warm_trainer: WarmParent, models: Path
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return a function that runs the command to its end."""

    def run(*arguments: object, command: str = "") -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-m", "mlpserve.trainer", *command.split()]
        command_line = [*program, "--models", models, *arguments]
        return warm_trainer.run(list(map(str, command_line)))

    return run
