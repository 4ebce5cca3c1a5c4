"""Pictures that visitors bring to the playground: opened, dropped and pasted, good and bad."""

import base64
import io
import mimetypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from harness.drawing import strokes
from processes import children
from visitor import Visitor

pytestmark = pytest.mark.exhaustive

EXIF_ORIENTATION = 274


def written(digit: str, ink: Any = "black", paper: Any = "white", mode: str = "RGB") -> Image.Image:
    picture = Image.new(mode, (280, 280), paper)
    for stroke in strokes(digit):
        ImageDraw.Draw(picture).line(stroke, fill=ink, width=20, joint="curve")
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def animated(kind: str) -> bytes:
    frames = [written("8"), written("0")]
    return encoded(written("7"), kind, save_all=True, append_images=frames, duration=20)


def turned() -> bytes:
    """Return a picture that lies on its side, and says that it does."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return encoded(written("7").transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)


def beside(digit: str) -> bytes:
    """Return a wide picture with a digit in a part of it."""
    picture = Image.new("RGB", (900, 300), "white")
    picture.paste(written(digit), (300, 10))
    return encoded(picture, "PNG")


def svg() -> bytes:
    return (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="280" height="280" onload="fetch(1)">'
        b'<script>document.title = "taken over"</script>'
        b'<image href="http://tracker.example/pixel.png" width="9" height="9"/>'
        b'<rect width="280" height="280" fill="white"/>'
        b'<rect x="130" y="50" width="20" height="180"/></svg>'
    )


def opened(visitor: Visitor, name: str, kind: str, content: bytes) -> None:
    payload: Any = {"name": name, "mimeType": kind, "buffer": content}
    visitor.page.locator("#file").set_input_files(payload)


@pytest.mark.parametrize(
    ("name", "content", "said", "remark"),
    [
        ("wide.png", lambda: beside("1"), "It says 1,", ""),
        ("light.png", lambda: encoded(written("7", "white", "black"), "PNG"), "7", ""),
        ("wire.gif", lambda: animated("GIF"), "It says 7,", "wire.gif moves: its"),
        ("wire.webp", lambda: animated("WEBP"), "It says 7,", "wire.webp moves"),
        ("wire.png", lambda: animated("PNG"), "It says 7,", "its first frame"),
        ("phone.jpg", turned, "It says 7,", ""),
        ("drawn.svg", svg, "It says 1,", ""),
        ("blank.png", lambda: encoded(Image.new("L", (9, 9)), "PNG"), "No digit", ""),
        ("dot.png", lambda: encoded(Image.new("1", (1, 1)), "PNG"), "No digit", ""),
    ],
)
def test_a_picture_that_is_opened_gets_its_answer(
    visitor: Visitor, name: str, content: Callable[[], bytes], said: str, remark: str
) -> None:
    visitor.visit("#model=digits&version=2")
    opened(visitor, name, mimetypes.guess_type(name)[0] or "image/webp", content())
    visitor.expect_said(said)
    expect(visitor.page.locator("#truth")).to_contain_text(remark)
    visitor.expect_notice("")
    assert visitor.page.title() == "mlpserve playground"


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_of_either_colour_stands_out_from_transparent_paper(visitor: Visitor, ink: int) -> None:
    visitor.visit("#model=digits&version=2")
    picture = written("7", (ink, ink, ink, 255), (ink, ink, ink, 0), "RGBA")
    opened(visitor, "ink.png", "image/png", encoded(picture, "PNG"))
    visitor.expect_said("It says 7,")


@pytest.mark.parametrize(
    ("name", "kind", "content", "message"),
    [
        ("notes.txt", "text/plain", b"hello", "notes.txt is no picture"),
        ("folder", "", b"", "folder is no picture"),
        ("broken.png", "image/png", b"\x89PNG\r\n\x1a\n no", "broken.png cannot be read as a pict"),
        ("empty.png", "image/png", b"", "empty.png cannot be read as a picture"),
        ("photo.heic", "image/heic", b"\x00\x00\x00\x18ftypheic", "photo.heic cannot be read as"),
    ],
)
def test_what_is_no_picture_is_said_and_the_drawing_stays(
    visitor: Visitor, name: str, kind: str, content: bytes, message: str
) -> None:
    visitor.visit("#model=digits&version=2")
    visitor.draw("7")
    visitor.expect_said("It says 7,")
    before = visitor.drawing()
    opened(visitor, name, kind, content)
    visitor.expect_notice(message)
    assert visitor.drawing() == before
    visitor.draw("7")
    visitor.expect_notice("")


def peaks(process: int) -> int:
    """Return the sum of the largest memory, in bytes, of a process and what it has started."""
    status = Path(f"/proc/{process}/status").read_text()
    own = int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0
    return 1024 * own + sum(peaks(child) for child in children(process))


def test_a_picture_of_100_megapixels_is_refused_before_it_is_decoded(visitor: Visitor) -> None:
    visitor.visit("#model=digits&version=2")
    content = encoded(Image.new("L", (10_000, 10_000), 255), "PNG")
    assert len(content) < 1_000_000
    browser = max(children(os.getpid()), key=lambda process: len(children(process)))
    before = peaks(browser)
    opened(visitor, "wall.png", "image/png", content)
    visitor.expect_notice("expected at most 50 million.")
    assert peaks(browser) - before < 100_000_000  # decoded, it has four times as many
    visitor.draw("7")
    visitor.expect_said("It says 7,")


def given(visitor: Visitor, event: str, files: dict[str, bytes], text: str = "") -> None:
    """Drop or paste files and text."""
    visitor.page.evaluate(
        """([event, files, text]) => {
             const data = new DataTransfer();
             if (text) data.setData("text/plain", text);
             for (const [name, content] of Object.entries(files)) {
               const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
               data.items.add(new File([bytes], name, { type: "image/png" }));
             }
             const options = { bubbles: true, cancelable: true };
             document.body.dispatchEvent(
               event === "drop"
                 ? new DragEvent("drop", { ...options, dataTransfer: data })
                 : new ClipboardEvent("paste", { ...options, clipboardData: data }),
             );
           }""",
        [
            event,
            {name: base64.b64encode(content).decode() for name, content in files.items()},
            text,
        ],
    )


def test_of_several_files_that_are_dropped_the_first_is_shown(visitor: Visitor) -> None:
    visitor.visit("#model=digits&version=2")
    files = {"a.png": encoded(written("7"), "PNG"), "b.png": encoded(written("0"), "PNG")}
    given(visitor, "drop", files)
    visitor.expect_said("It says 7,")
    expect(visitor.page.locator("#truth")).to_have_text("Of 2 files the first is shown: a.png.")


def test_a_picture_is_pasted(visitor: Visitor) -> None:
    visitor.visit("#model=digits&version=2")
    given(visitor, "paste", {"a.png": encoded(written("7"), "PNG")})
    visitor.expect_said("It says 7,")


@pytest.mark.parametrize(
    ("event", "message"),
    [("paste", "The clipboard holds no picture."), ("drop", "is no file of a picture")],
)
def test_text_is_no_picture(visitor: Visitor, event: str, message: str) -> None:
    visitor.visit("#model=digits&version=2")
    given(visitor, event, {}, "seven")
    visitor.expect_notice(message)
