"""The playground while what is behind it goes away, comes back and changes."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from mlpserve.model.folder import weights_path
from mlpserve.model.versions import publish
from mlpserve.model.weights import load_model
from ports import free_port
from visitor import Visitor, playing, serving

pytestmark = pytest.mark.exhaustive


def only_failed_requests(visitor: Visitor) -> bool:
    """Return whether the browser complained of nothing but answers that did not come."""
    return all("Failed to load resource" in complaint for complaint in visitor.complaints)


def first_call_held(visitor: Visitor, url: str) -> list[Route]:
    """Keep the first call of a URL from being answered; return the list that it will be in."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visitor.page.route(url, hold, times=1)
    return held


def test_a_server_that_goes_away_and_comes_back_loses_nothing(
    browser: Browser, digits: Path
) -> None:
    port = free_port()
    with playing("--target", f"127.0.0.1:{port}", "--models", digits) as (_, url):
        context = browser.new_context()
        visitor = Visitor(context, url).visit("#model=digits&version=2&off=0.5&noise=0.1")
        visitor.expect_notice("The server does not answer. The page keeps what is drawn")
        with serving(digits, port):
            visitor.expect_notice("")
            expect(visitor.page.locator(".neuron.off")).to_have_count(1)
            visitor.draw("1")
            visitor.expect_said("It says 1,")
        visitor.page.get_by_role("button", name="Clear").click()
        visitor.draw("7")
        visitor.expect_notice("The server does not answer. The page keeps what is drawn")
        drawn = visitor.drawing()
        with serving(digits, port):
            visitor.expect_said("It says 7,")
            visitor.expect_notice("")
            assert visitor.drawing() == drawn
            expect(visitor.page.locator(".neuron.off")).to_have_count(1)
            expect(visitor.page.locator("#noise")).to_have_value("0.1")
        assert only_failed_requests(visitor), visitor.complaints
        context.close()


def test_a_playground_that_restarts_loses_nothing(browser: Browser, digits: Path) -> None:
    port = free_port()
    with serving(digits) as (_, target):
        arguments = ("--target", target, "--models", digits)
        context = browser.new_context()
        with playing(*arguments, port=port) as (_, url):
            visitor = Visitor(context, url).visit("#model=digits&version=2")
            visitor.draw("1")
            visitor.expect_said("It says 1,")
        visitor.expect_notice("The playground does not answer. The page keeps what is drawn")
        visitor.page.get_by_role("button", name="Clear").click()
        visitor.draw("7")
        with playing(*arguments, port=port):
            visitor.expect_said("It says 7,")
            visitor.expect_notice("")
        context.close()


def test_a_call_that_nobody_answers_is_given_up_and_made_again(visitor: Visitor) -> None:
    held = first_call_held(visitor, "**/api/models")
    visitor.visit()  # which waits until the page has something to say
    visitor.expect_notice("The playground does not answer.")
    visitor.draw("7")
    visitor.expect_said("It says 7,")
    visitor.expect_notice("")
    assert len(held) == 1


def test_test_images_that_take_long_are_said_to_be_loading(visitor: Visitor) -> None:
    held = first_call_held(visitor, "**/api/example*")
    visitor.visit()
    visitor.page.locator("#next").click()
    expect(visitor.page.locator("#truth")).to_have_text("Loading the test images.")
    held[0].continue_()
    expect(visitor.page.locator("#truth")).to_contain_text("Image 1 of", timeout=60_000)


def test_a_version_that_vanishes_while_it_is_shown_is_said(
    browser: Browser, digits: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(digits, models)
    with (
        serving(models) as (_, target),
        playing("--target", target, "--models", models) as (_, url),
    ):
        context = browser.new_context()
        visitor = Visitor(context, url).visit("#model=digits&version=1")
        visitor.draw("7")
        visitor.expect_said("It says")
        drawn = visitor.drawing()
        # The server keeps the newest two.
        publish(models, load_model(weights_path(models, "digits", 2)))
        visitor.expect_notice(
            "Version 1 of digits is served no longer. Version 3 of digits answers now."
        )
        visitor.expect_said("It says 7,")
        expect(visitor.page.locator("#version")).to_have_value("3")
        assert visitor.drawing() == drawn
        assert only_failed_requests(visitor), visitor.complaints
        context.close()


def test_two_tabs_do_not_disturb_each_other(visitor: Visitor) -> None:
    other = Visitor(visitor.page.context, visitor.url).visit("#model=digits&version=1")
    visitor.visit("#model=digits&version=2")
    visitor.draw("7")
    other.draw("1")
    visitor.expect_said("It says 7,")
    other.expect_said("It says")
    expect(visitor.page.locator("#took")).to_contain_text("digits version 2")
    expect(other.page.locator("#took")).to_contain_text("digits version 1")
    assert other.complaints == []


@pytest.mark.parametrize(
    ("fragment", "notice"),
    [
        ("#model=digits&version=2&image=abc", "The image in this page's address is damaged"),
        ("#model=digits&version=2&image=%00", "The image in this page's address is damaged"),
        (
            "#model=cats&version=99&off=9.9,x,0.-1&noise=NaN",
            "This page's address names version 99 of cats, which is not served.",
        ),
        (
            "#model=digits&version=99",
            "version 99 of digits, which is not served. Version 2 of digits answers instead.",
        ),
        ("#%", ""),
    ],
)
def test_an_address_that_is_damaged_shows_what_it_can(
    visitor: Visitor, fragment: str, notice: str
) -> None:
    visitor.visit(fragment)
    visitor.expect_notice(notice)
    visitor.draw("7")
    visitor.expect_said("It says 7,")
    expect(visitor.page.locator(".neuron.off")).to_have_count(0)


def test_very_fast_strokes_are_answered_by_few_calls_and_the_last_wins(visitor: Visitor) -> None:
    page = visitor.visit("#model=digits&version=2").page
    asked: list[str] = []
    underway: list[str] = []
    most: list[int] = []

    def begun(request: Any) -> None:
        if "/api/predict" in request.url and "width=160" in request.url:
            asked.append(request.url)
            underway.append(request.url)
            most.append(len(underway))

    def ended(request: Any) -> None:
        if "/api/predict" in request.url and "width=160" in request.url:
            underway.remove(request.url)

    page.on("request", begun)
    page.on("requestfinished", ended)
    for digit in "80":
        page.get_by_role("button", name="Clear").click()
        visitor.draw(digit, steps=20)
    visitor.expect_said("It says 0,")
    assert max(most) == 1
    assert len(asked) <= 20 * (9 + 8)


def test_strokes_that_are_none_are_no_drawing(visitor: Visitor) -> None:
    page = visitor.visit("#model=digits&version=2").page
    pad = page.locator("#pad")
    pad.click(button="right", position={"x": 100, "y": 100})
    page.mouse.move(20, 20)
    page.mouse.down()  # beside the pad
    pad.hover()
    page.mouse.up()
    pad.press("Escape")
    pad.press("ArrowDown")  # with the pen up
    visitor.expect_said("Nothing is drawn yet.")
    expect(page).not_to_have_url(re.compile("image="))
    pad.click(position={"x": 100, "y": 100})  # a dot
    visitor.expect_said("No digit was found in it.")
