"""Fixtures of the playground's tests: a server with real versions, the playground, a browser."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

# A browser in a container, which looks for no updates and needs no graphics.
BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def running(
    part: str, *arguments: object, ready: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a program; yield its process and the first group of the line that says it is ready."""
    command = [sys.executable, "-m", f"mlpserve.{part}", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            found = re.search(ready, said)
            assert found is not None, said + process.stderr.read()
            yield process, found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@contextmanager
def serving(models: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server; yield its process and its address."""
    arguments = ("--models", models, "--port", port, "--host", "127.0.0.1", "--workers", 1)
    with running("server", *arguments, ready=r"ready: serving .* on (\S+)$") as found:
        yield found


@contextmanager
def playing(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the playground; yield its process and its URL."""
    with running("playground", "--port", 0, *arguments, ready=r"(http://\S+)$") as found:
        yield found


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path) -> Path:
    """Return a models folder with two versions: 784-128-10, and the tutorial's 784-16-16-10."""
    folder = tmp_path_factory.mktemp("models")
    for recipe, epochs in (("seed-fast", 3), ("fast", 2)):
        command = [sys.executable, "-m", "mlpserve.trainer", "--models", str(folder)]
        command += ["--data", "mnist", "--data-dir", str(mnist_folder), "--recipe", recipe]
        command += ["--name", "digits"]
        command += ["--epochs", str(epochs), "--seed", "1"]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def url(digits: Path, mnist_folder: Path) -> Iterator[str]:
    """Return where a playground with these versions answers."""
    with (
        serving(digits) as (_, target),
        playing(
            *("--target", target, "--models", digits),
            *("--data", "mnist", "--data-dir", mnist_folder),
        ) as (_, found),
    ):
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return Chromium; tests with it are left out where there is none, but not in CI."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI must run the tests in a browser, but there is no chromium")
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        yield started
        started.close()
