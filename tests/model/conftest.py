"""Fixtures of the model's tests: processes that write, a full disk, a weights file."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from mlpserve.model.versions import publish
from mlpserve.model.weights import Model, golden_samples, save_model
from warm_parent import WarmParent

Publisher: TypeAlias = Callable[..., subprocess.Popen[str]]
Run: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = Path(__file__).with_name("publisher.py")
COMMAND = [sys.executable, "-W", "error", "-m", "mlpserve.model"]


@pytest.fixture
def weights_file(tmp_path: Path, model: Model) -> Path:
    """Return a file that tells another process what to publish."""
    path = tmp_path / "to-publish.npz"
    save_model(path, model)
    return path


@pytest.fixture
def publisher() -> Publisher:
    """Return a function that starts the program ``publisher.py``."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", str(PROGRAM), *map(str, arguments)]
        # One thread: a fork of more is not safe, and Python warns of it.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    return start


@pytest.fixture
def start_together() -> Callable[[list[subprocess.Popen[str]]], None]:
    """Return a function that has processes begin at once, as soon as all of them are ready."""

    def start(processes: list[subprocess.Popen[str]]) -> None:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    return start


@pytest.fixture(scope="session")
def warm_models() -> Iterator[WarmParent]:
    """Return what runs the commands on models without their imports for each."""
    commands = ("changes", "examination", "listing")  # which are imported when they are run
    modules = [f"mlpserve.model.commands.{name}" for name in commands]
    with WarmParent(["mlpserve.model.__main__", *modules]) as parent:
        yield parent


@pytest.fixture
def run(models: Path, warm_models: WarmParent) -> Run:
    """Return a function that runs a command on the models folder."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "--models", str(models), *map(str, arguments)]
        return warm_models.run(command, timeout_s=60)

    return run


@pytest.fixture
def three(models: Path, model: Model) -> Path:
    """Publish three versions, with golden samples; return their folder."""
    images = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    golden = golden_samples(model.network, model.metadata.input, images)
    for _ in range(3):
        publish(models, Model(model.network, model.metadata, golden))
    return models / "tiny"
