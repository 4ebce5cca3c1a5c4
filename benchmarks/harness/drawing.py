"""Digits drawn in a real browser, on the pad of the playground."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

# A browser in a container, which looks for no updates and needs no graphics.
BROWSER_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAD: Final = 280
# One way to write each digit, in the 280 x 280 pixels of the pad: "x,y x,y; ..." for its strokes.
STROKES: Final = {
    "0": "140,60 95,90 80,140 95,190 140,220 185,190 200,140 185,90 140,60",
    "1": "140,60 140,220",
    "2": "85,100 110,65 160,62 185,95 165,140 85,215 200,215",
    "3": "90,70 150,60 185,85 165,125 130,135 175,150 195,185 160,220 90,212",
    "4": "110,60 85,150 195,150; 175,70 165,225",
    "5": "190,65 105,65 95,130 150,122 190,150 185,195 145,220 85,210",
    "6": "165,60 115,105 90,165 105,210 150,220 185,190 165,155 120,160 98,185",
    "7": "80,70 200,70 130,220",
    "8": "140,135 100,100 120,65 165,65 180,100 140,135 95,175 110,215 165,218 190,180 140,135",
    "9": "185,90 150,62 105,80 100,125 145,140 182,105 185,90 180,150 165,222",
}


def strokes(digit: str) -> list[list[tuple[int, int]]]:
    """Return the corners of each stroke of a digit, in pixels of the pad."""

    def corner(text: str) -> tuple[int, int]:
        x, y = text.split(",")
        return int(x), int(y)

    return [[corner(text) for text in one.split()] for one in STROKES[digit].split(";")]


def chromium() -> str | None:
    """Return the path of the browser; None where there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def browsing(program: str) -> Iterator[Browser]:
    """Run a browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        yield browser
        browser.close()


def drawing(page: Page, digit: str, *, steps: int = 5) -> Iterator[None]:
    """Draw a digit with the mouse, and yield after each of the ``steps`` moves of each line."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    assert box is not None  # noqa: S101 - it is on the page
    scale = box["width"] / PAD
    for first, *rest in strokes(digit):
        page.mouse.move(box["x"] + scale * first[0], box["y"] + scale * first[1])
        page.mouse.down()
        before = first
        for corner in rest:
            for step in range(1, steps + 1):
                x, y = (a + (b - a) * step / steps for a, b in zip(before, corner, strict=True))
                page.mouse.move(box["x"] + scale * x, box["y"] + scale * y)
                yield
            before = corner
        page.mouse.up()


def draw(page: Page, digit: str, *, steps: int = 5) -> None:
    """Draw a digit with the mouse."""
    for _ in drawing(page, digit, steps=steps):
        pass
