"""Visitors of the playground: a page in a real browser, and the programs behind it."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, expect

from harness.drawing import draw


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
def playing(*arguments: object, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the playground; yield its process and its URL."""
    with running("playground", "--port", port, *arguments, ready=r"(http://\S+)$") as found:
        yield found


class Visitor:
    """Somebody at the page; remembers what the browser complains of, and whom it asks."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.url = url
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)

    def visit(self, fragment: str = "") -> "Visitor":
        """Open the page, and wait until it knows the models."""
        self.page.goto(f"{self.url}/{fragment}")
        self.page.wait_for_selector("body[data-state=ready]")
        return self

    def draw(self, digit: str, *, steps: int = 5) -> None:
        """Draw a digit with the mouse."""
        draw(self.page, digit, steps=steps)

    def expect_said(self, text: str) -> None:
        """Wait until the answer has a text."""
        expect(self.page.locator("#said")).to_contain_text(text, timeout=60_000)

    def expect_notice(self, text: str) -> None:
        """Wait until the page says what is wrong; nothing is wrong if the text is empty."""
        if text:
            expect(self.page.locator("#notice")).to_contain_text(text, timeout=60_000)
        else:
            expect(self.page.locator("#notice")).to_be_hidden(timeout=60_000)

    def drawing(self) -> str:
        """Return what is on the pad, as a data URL."""
        found: str = self.page.evaluate("document.querySelector('#pad').toDataURL()")
        return found

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.foreign.append(request.url)
