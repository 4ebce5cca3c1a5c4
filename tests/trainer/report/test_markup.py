import pytest

from mlpserve.trainer.report.markup import Markup, element, joined, number


def test_an_element_closes_itself_and_keeps_what_is_markup() -> None:
    inner = element("b", "1 < 2 & 3")
    assert inner == "<b>1 &lt; 2 &amp; 3</b>"
    assert element("p", "so: ", inner, class_="x") == f'<p class="x">so: {inner}</p>'
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_attributes_are_escaped_and_named_as_html_has_them() -> None:
    made = element("line", class_="a\"b'<", stroke_width=1.5, x1=-0.0, y1=None)
    assert made == '<line class="a&quot;b&#x27;&lt;" stroke-width="1.5" x1="0"></line>'


@pytest.mark.parametrize("letter", ["\x00", "\x1b", "\x85", "\u202e", "\ud800", "\n"])
def test_what_cannot_be_printed_is_replaced(letter: str) -> None:
    assert element("p", f"a{letter}b", title=letter) == '<p title="\ufffd">a\ufffdb</p>'


def test_letters_and_spaces_of_all_writings_are_kept() -> None:
    text = "Ärger\xa0日本\u3000अ😀"
    assert joined([text]) == text


def test_joined_texts_are_markup() -> None:
    assert isinstance(joined(["<", Markup("<br>")]), Markup)
    assert joined(["<", Markup("<br>")]) == "&lt;<br>"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (340, "340"), (1.005, "1"), (2.5, "2.5"), (-0.001, "0"), (-12.346, "-12.35")],
)
def test_numbers_have_two_decimals_at_most(value: float, text: str) -> None:
    assert number(value) == text
