"""Fixtures of the playground's tests: a server with real versions, the playground, a browser."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness.drawing import browsing, chromium
from visitor import Visitor, playing, serving


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path) -> Path:
    """Return a models folder with two versions: 784-128-10, and the tutorial's 784-16-16-10."""
    folder = tmp_path_factory.mktemp("models")
    for recipe, epochs in (("seed-fast", 3), ("fast", 2)):
        command = [sys.executable, "-m", "mlpserve.trainer", "--models", str(folder)]
        command += ["--data", "mnist", "--data-dir", str(mnist_folder), "--recipe", recipe]
        command += ["--name", "digits"]
        command += ["--epochs", str(epochs), "--seed", "1"]
        subprocess.run(command, check=True, timeout=600, capture_output=True)
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
    program = chromium()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI must run the tests in a browser, but there is no chromium")
        pytest.skip("needs chromium")
    with browsing(program) as started:
        yield started


@pytest.fixture
def visitor(browser: Browser, url: str) -> Iterator[Visitor]:
    """Return a visitor with a desktop, of whom the browser must not complain."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    found = Visitor(context, url)
    yield found
    context.close()
    assert found.complaints == []
    assert found.foreign == []
