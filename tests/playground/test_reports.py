"""The trainer's pages in a real browser: the report of a version, and the comparison of two."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from mlpserve.model.__main__ import main

pytestmark = pytest.mark.exhaustive

LETTERS_ARE_INSIDE_THEIR_CHARTS = """() => [...document.querySelectorAll('svg')].every((svg) => {
  const outer = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].every((text) => {
    const inner = text.getBoundingClientRect();
    return inner.left >= outer.left - 1 && inner.right <= outer.right + 1;
  });
})"""


@pytest.fixture(scope="module")
def pages(digits: Path, mnist_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a report and a comparison, as files."""
    page = tmp_path_factory.mktemp("pages") / "comparison.html"
    data = ["--data", "mnist", "--data-dir", str(mnist_folder)]
    command = ["--models", str(digits), "compare", "digits:1", "digits:2", *data]
    assert main([*command, "--output", str(page)]) == 0
    return [digits / "digits" / "2" / "report.html", page]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
@pytest.mark.parametrize("which", [0, 1], ids=["report", "comparison"])
def test_page_fits_is_accessible_and_asks_nobody(
    browser: Browser, pages: list[Path], *, which: int, scheme: Any, width: int
) -> None:
    with browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True
    ) as context:
        page = context.new_page()
        requests: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        address = pages[which].as_uri()
        page.goto(address)
        assert [url for url in requests if not url.startswith("data:")] == [address]
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(LETTERS_ARE_INSIDE_THEIR_CHARTS)
        found = Axe().run(page).response["violations"]
        assert [each for each in found if each["impact"] in ("serious", "critical")] == []
