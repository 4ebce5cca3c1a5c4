"""The playground's page, in a real browser."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from harness.drawing import STROKES
from mlpserve.model.folder import weights_path
from mlpserve.model.weights import load_model
from visitor import Visitor

pytestmark = pytest.mark.exhaustive


@pytest.mark.parametrize("digit", STROKES)
def test_each_digit_that_is_drawn_gets_its_answer(visitor: Visitor, digit: str) -> None:
    visitor.visit()
    visitor.draw(digit)
    visitor.expect_said(f"It says {digit},")


def test_a_digit_looks_like_what_was_learned_and_a_scribble_does_not(visitor: Visitor) -> None:
    page = visitor.visit().page
    visitor.draw("3")
    visitor.expect_said("It says 3,")
    expect(page.locator("#unlike")).to_be_hidden()
    page.locator("#clear").click()
    box = page.locator("#pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 30, box["y"] + 40)
    page.mouse.down()
    for row in range(8):
        page.mouse.move(box["x"] + (240 if row % 2 else 40), box["y"] + 40 + 25 * row, steps=5)
    page.mouse.up()
    said = expect(page.locator("#unlike"))
    said.to_have_text("But this does not look like what it learned.", timeout=60_000)
    page.locator("#clear").click()
    expect(page.locator("#unlike")).to_be_hidden(timeout=60_000)


def test_the_page_computes_what_the_server_answers(visitor: Visitor, digits: Path) -> None:
    visitor.visit("#model=digits&version=1")
    visitor.draw("3")
    visitor.expect_said("It says")
    found = visitor.page.evaluate(
        """async () => {
             const { Network } = await import("/static/network.js");
             const answer = await (await fetch("/api/network?model=digits&version=1")).json();
             const image = Float64Array.from({ length: 784 }, (_, i) => ((i * 37) % 256) / 255);
             return [...new Network(answer).forward(image).at(-1).outputs];
           }"""
    )
    image = ((np.arange(784) * 37) % 256 / 255)[np.newaxis].astype(np.float32)
    expected = load_model(weights_path(digits, "digits", 1)).network.probabilities(image)
    np.testing.assert_allclose(found, expected[0], atol=1e-5)


def test_a_neuron_that_is_pointed_at_shows_its_numbers_and_one_that_is_pressed_is_off(
    visitor: Visitor,
) -> None:
    page = visitor.visit("#model=digits&version=1").page
    visitor.draw("7")
    visitor.expect_said("It says")
    expect(page.locator(".neuron")).to_have_count(42)
    page.locator(".neuron").nth(3).hover()
    expect(page.locator("#neuron h3")).to_have_text("Neuron 4 of layer 1")
    expect(page.locator("#neuron .formula")).to_contain_text("a = tanh(z) =")
    page.locator(".neuron").nth(3).click()
    expect(page.locator(".neuron").nth(3)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#neuron")).to_contain_text("turned off")
    expect(page).to_have_url(re.compile("off=0.3"))
    page.locator(".neuron").nth(40).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#neuron h3")).to_have_text("Class 8")
    expect(page.locator("#neuron .formula")).to_contain_text("%")
    page.get_by_role("button", name="Mend all").click()
    expect(page.locator(".neuron.off")).to_have_count(0)


def test_noise_on_the_weights_changes_the_page_and_not_the_server(visitor: Visitor) -> None:
    page = visitor.visit("#model=digits&version=2").page
    visitor.draw("7")
    visitor.expect_said("It says 7,")
    page.locator("#noise").fill("2")
    expect(page.locator("#broken")).to_contain_text("the broken network on this page says")
    expect(page.locator("#bars meter.broken").first).to_be_visible()
    visitor.expect_said("It says 7,")


def test_the_address_shows_the_same_to_somebody_else(visitor: Visitor, browser: Browser) -> None:
    visitor.visit("#model=digits&version=2")
    visitor.draw("3")
    visitor.expect_said("It says 3,")
    visitor.page.locator(".neuron").nth(5).click()
    expect(visitor.page).to_have_url(re.compile(r"off=.*image="))
    context = browser.new_context()
    other = Visitor(context, visitor.url).visit("#" + visitor.page.url.partition("#")[2])
    other.expect_said("It says 3,")
    expect(other.page.locator("#version")).to_have_value("2")
    expect(other.page.locator(".neuron.off")).to_have_count(1)
    assert other.complaints == []
    context.close()


def test_the_page_shows_which_pixels_spoke_for_the_answer_and_for_a_class_that_is_pointed_at(
    visitor: Visitor,
) -> None:
    page = visitor.visit("#model=digits&version=2").page
    visitor.draw("7")
    expect(page.locator("#why-text")).to_have_text("why 7: orange spoke for it, blue against")
    colours = page.evaluate(
        """() => {
             const canvas = document.querySelector("#why");
             const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, 28);
             return new Set(data).size;
           }"""
    )
    assert colours > 10
    page.get_by_role("button", name="class 2").hover()
    expect(page.locator("#why-text")).to_have_text("why 2: orange spoke for it, blue against")


def test_all_versions_answer_side_by_side(visitor: Visitor) -> None:
    page = visitor.visit().page
    visitor.draw("1")
    rows = page.locator("#version-rows tr")
    expect(rows).to_have_count(2)
    for row in rows.all():
        expect(row.locator("td").nth(6)).to_contain_text("%")
        report = row.get_by_role("link", name="Report of version")
        expect(report).to_have_attribute("href", re.compile("/report/digits/"))


def test_test_images_are_shown_with_what_they_are(visitor: Visitor) -> None:
    page = visitor.visit().page
    page.get_by_role("button", name="Test image ▶").click()
    expect(page.locator("#truth")).to_have_text("Image 1 of 10000 of mnist: a 7.")
    visitor.expect_said("It says 7,")
    page.get_by_role("button", name="Test image ▶").click()
    expect(page.locator("#truth")).to_contain_text("Image 2 of 10000")
    page.get_by_role("button", name="Previous test image").click()
    expect(page.locator("#truth")).to_contain_text("Image 1 of 10000")


def test_a_test_image_keeps_its_caption_when_the_page_is_loaded_again(visitor: Visitor) -> None:
    page = visitor.visit().page
    for number, digit in enumerate("72"):
        page.get_by_role("button", name="Test image ▶").click()
        visitor.expect_said(f"It says {digit},")
        expect(page).to_have_url(re.compile(f"image=.*example={number}$"))
    for _ in range(2):
        page.reload()
        visitor.expect_said("It says 2,")
        expect(page.locator("#truth")).to_have_text("Image 2 of 10000 of mnist: a 2.")
        expect(page).to_have_url(re.compile(r"image=.*example=1$"))
    page.get_by_role("button", name="Previous test image").click()
    expect(page.locator("#truth")).to_have_text("Image 1 of 10000 of mnist: a 7.")
    expect(page).to_have_url(re.compile(r"example=0$"))
    visitor.draw("3")
    expect(page.locator("#truth")).to_have_text("")
    expect(page).not_to_have_url(re.compile("example="))


def test_an_image_that_is_another_than_the_test_image_of_the_address_has_no_caption(
    visitor: Visitor,
) -> None:
    page = visitor.visit().page
    page.get_by_role("button", name="Test image ▶").click()
    expect(page).to_have_url(re.compile(r"image=.*example=0$"))
    fragment = page.url.partition("#")[2].removesuffix("0") + "1"
    page.goto("about:blank")
    with page.expect_response("**/api/example?number=1"):
        visitor.visit(f"#{fragment}")
    visitor.expect_said("It says 7,")
    expect(page.locator("#truth")).to_have_text("")


def test_it_is_drawn_with_the_keyboard(visitor: Visitor) -> None:
    page = visitor.visit().page
    page.locator("#pad").focus()
    page.keyboard.press("Space")
    for _ in range(20):
        page.keyboard.press("ArrowDown")
    visitor.expect_said("It says 1,")


def test_it_is_drawn_with_a_finger_on_a_phone(browser: Browser, url: str) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    visitor = Visitor(context, url).visit()
    box = visitor.page.locator("#pad").bounding_box()
    assert box is not None
    touch = context.new_cdp_session(visitor.page)
    scale = box["width"] / 280
    for kind, place in [
        ("touchStart", (140, 60)),
        ("touchMove", (140, 150)),
        ("touchMove", (140, 220)),
    ]:
        point = {"x": box["x"] + scale * place[0], "y": box["y"] + scale * place[1]}
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    visitor.expect_said("It says 1,")
    wide = visitor.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert wide, "the page is wider than the phone"
    assert visitor.complaints == []
    context.close()


def test_clearing_forgets_the_answer(visitor: Visitor) -> None:
    page = visitor.visit().page
    visitor.draw("7")
    visitor.expect_said("It says 7,")
    page.get_by_role("button", name="Clear").click()
    visitor.expect_said("Nothing is drawn yet.")
    expect(page).not_to_have_url(re.compile("image="))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
def test_axe_finds_nothing_serious(browser: Browser, url: str, scheme: Any, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    visitor = Visitor(context, url).visit("#model=digits&version=1")
    visitor.draw("7")
    visitor.expect_said("It says")
    visitor.page.locator(".neuron").nth(3).focus()
    found = Axe().run(visitor.page).response["violations"]
    serious = [one["id"] for one in found if one["impact"] in {"serious", "critical"}]
    assert serious == []
    context.close()


def test_the_page_follows_the_window_and_keeps_the_drawing(visitor: Visitor) -> None:
    page = visitor.visit("#model=digits&version=1").page
    visitor.draw("7")
    drawn = visitor.drawing()
    for width, height in ((390, 844), (900, 600), (1800, 1000), (320, 568)):
        page.set_viewport_size({"width": width, "height": height})
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(fits), f"the page is wider than {width}"
        box = page.locator("#diagram").bounding_box()
        assert box is not None
        for neuron in (0, 41):
            shown = page.locator(".neuron circle").nth(neuron)
            expect(shown).to_be_attached()
            page.wait_for_function(
                """([neuron, width]) => {
                     const circle = document.querySelectorAll(".neuron circle")[neuron];
                     const x = Number(circle.getAttribute("cx"));
                     return x > 0 && x < width;
                   }""",
                arg=[neuron, box["width"]],
            )
    assert visitor.drawing() == drawn
    visitor.page.get_by_role("button", name="Clear").click()
    visitor.draw("1")
    visitor.expect_said("It says")
    assert visitor.drawing() != drawn


def test_a_finger_points_at_a_neuron_and_the_button_turns_it_off(
    browser: Browser, url: str
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    visitor = Visitor(context, url).visit("#model=digits&version=1")
    page = visitor.page
    page.locator(".neuron").nth(3).tap()
    expect(page.locator("#neuron h3")).to_have_text("Neuron 4 of layer 1")
    expect(page.locator(".neuron.off")).to_have_count(0)
    page.get_by_role("button", name="Turn neuron off").tap()
    expect(page.locator(".neuron.off")).to_have_count(1)
    page.get_by_role("button", name="Turn neuron on").tap()
    expect(page.locator(".neuron.off")).to_have_count(0)
    assert visitor.complaints == []
    context.close()


def test_another_version_is_chosen_in_the_table_and_the_drawing_stays(visitor: Visitor) -> None:
    page = visitor.visit("#model=digits&version=1").page
    visitor.draw("7")
    visitor.expect_said("It says")
    page.get_by_role("link", name="Show version 2").click()
    visitor.expect_said("It says 7,")
    expect(page.locator("#took")).to_contain_text("digits version 2")
