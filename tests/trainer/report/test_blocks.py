import pytest

from mlpserve.trainer.report.blocks import duration


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
