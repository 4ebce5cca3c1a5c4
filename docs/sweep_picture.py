"""Makes docs/pictures/sweep.webp: runs a sweep on MNIST, and photographs its part of the report.

    PYTHONPATH=benchmarks python docs/sweep_picture.py

Needs chromium, and MNIST as ``mlpserve-train --data mnist`` does.
"""

import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from harness.drawing import browsing, chromium

_PICTURE: Final = Path(__file__).parent / "pictures" / "sweep.webp"
_SWEEP: Final = (
    *("--data", "mnist", "--name", "digits", "--epochs", "9", "--min-epochs", "3"),
    *("--vary", "learning-rate=0.0005..0.05:log", "--vary", "layers=16,16|32|64|128"),
    *("--trials", "12"),
)


def main() -> None:
    """Make the picture."""
    program = chromium()
    if program is None:
        raise SystemExit("sweep_picture.py: needs chromium")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mlpserve.trainer", "sweep", *_SWEEP]
        subprocess.run(command, cwd=folder, check=True)
        report = Path(folder, "models", "digits", "1", "report.html")
        with browsing(program) as browser:
            page = browser.new_page(
                viewport={"width": 1100, "height": 900}, device_scale_factor=1.25
            )
            page.goto(report.as_uri())
            heading = page.locator("h2", has_text="How its settings were found")
            section = page.locator("section", has=heading)
            section.locator("details").evaluate("details => { details.open = true }")
            page.add_style_tag(content="section { padding: 16px }")
            png = section.screenshot()
    Image.open(BytesIO(png)).convert("RGB").save(_PICTURE, quality=80, method=6)


if __name__ == "__main__":
    main()
