import pytest

from mlpserve.trainer.report.formats import duration, number, printable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (185, "3 min 5 s"),
        (599.7, "10 min 0 s"),
        (1494, "25 min"),
        (3599, "1 h 0 min"),
        (3720, "1 h 2 min"),
    ],
)
def test_a_time_is_as_exact_as_one_reads_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words.replace(" ", "\N{NO-BREAK SPACE}")


@pytest.mark.parametrize("letter", ["\x00", "\x1b", "\x85", "\u202e", "\ud800", "\n"])
def test_what_cannot_be_printed_is_replaced(letter: str) -> None:
    assert printable(f"a{letter}b") == "a\ufffdb"


def test_letters_and_spaces_of_all_writings_are_kept() -> None:
    text = "Ärger\xa0日本\u3000अ😀"
    assert printable(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (340, "340"), (1.005, "1"), (2.5, "2.5"), (-0.001, "0"), (-12.346, "-12.35")],
)
def test_numbers_have_two_decimals_at_most(value: float, text: str) -> None:
    assert number(value) == text
