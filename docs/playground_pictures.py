"""Pictures of the playground: the README's animation, and a screenshot of a desktop and of a phone.

    mlpserve-train --data mnist --name digits
    mlpserve-train --data mnist --name digits --layers 16,16 --activation tanh
    make play
    PYTHONPATH=benchmarks python docs/playground_pictures.py

All that they show is the real page: a 3 is drawn, neurons are pointed at and turned off, the
weights get noise and are mended.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Page

from harness.drawing import browsing, chromium, draw, drawing

FOLDER: Final = Path(__file__).with_name("pictures")
WIDTH, HEIGHT = 1200, 810
SCALE: Final = 1.3  # the README is about 830 pixels wide: two of the picture's for one of it
STROKE_MS, MOVE_MS, READ_MS = 70, 120, 1100
CURSOR: Final = """() => {
    const cursor = document.body.appendChild(document.createElement("div"));
    Object.assign(cursor.style, {
        position: "fixed", width: "22px", height: "22px", margin: "-11px", zIndex: 9,
        border: "3px solid #e0218a", borderRadius: "50%", pointerEvents: "none", left: "-50px",
    });
    addEventListener("mousemove", ({ clientX, clientY }) => {
        Object.assign(cursor.style, { left: `${clientX}px`, top: `${clientY}px` });
    }, true);
}"""


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of the playground.")
    parser.add_argument("--url", default="http://localhost:8080", help="where the page answers")
    url = parser.parse_args().url
    program = chromium()
    if program is None:
        raise SystemExit("playground_pictures.py: needs chromium")
    FOLDER.mkdir(exist_ok=True)
    with browsing(program) as browser:
        _animation(browser, url)
        _still(browser, url, "desktop-light", 1360, 1, is_phone=False)
        _still(browser, url, "phone-dark", 390, 2, is_phone=True)


def _animation(browser: Browser, url: str) -> None:
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT},
        device_scale_factor=SCALE,
        color_scheme="light",
    )
    _open(page, url)
    page.evaluate(CURSOR)
    frames, durations = [], []
    for duration_ms in _story(page):
        frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        durations.append(duration_ms)
    frames[0].save(
        FOLDER / "playground.webp",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=33,
        method=4,
        minimize_size=True,
    )
    page.close()


def _story(page: Page) -> Iterator[int]:
    """Play at the page; yield for how many milliseconds each frame is shown."""
    yield READ_MS // 2
    for step, _ in enumerate(drawing(page, "3", steps=4)):
        if step % 2:
            yield STROKE_MS
    _rest(page)
    yield READ_MS
    for name in ("class 5, ", "neuron 6 of layer 2, "):
        page.locator(f".neuron[aria-label^='{name}']").hover()
        _rest(page)
        yield READ_MS
    for number in (2, 5, 9, 12, 15):
        page.locator(f".neuron[aria-label^='neuron {number} of layer 1, ']").click()
        _rest(page)
        yield 4 * MOVE_MS
    yield READ_MS
    for step in range(1, 7):
        page.locator("#noise").fill(str(step / 5))
        yield MOVE_MS
    yield READ_MS
    page.get_by_role("button", name="Mend all").click()
    _rest(page)
    yield READ_MS


def _still(
    browser: Browser, url: str, name: str, width: int, scale: int, *, is_phone: bool
) -> None:
    page = browser.new_page(
        viewport={"width": width, "height": 900},
        device_scale_factor=scale,
        has_touch=is_phone,
        is_mobile=is_phone,
        color_scheme="dark" if is_phone else "light",
    )
    _open(page, url)
    draw(page, "3")
    _rest(page)
    content = page.screenshot(full_page=not is_phone)
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.save(FOLDER / f"playground-{name}.webp", quality=70, method=6)
    page.close()


def _open(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("body[data-state=ready]")


def _rest(page: Page) -> None:
    """Wait until the page has shown all that follows from the last stroke."""
    page.wait_for_timeout(500)
    page.wait_for_load_state("networkidle")


if __name__ == "__main__":
    main()
