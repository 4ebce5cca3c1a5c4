import stat
import sys
from pathlib import Path

import pytest

from harness.errors import BenchmarkError
from harness.figures import Spread, ratios
from harness.machine import describe_machine
from harness.noise import Noise, NoiseMeter
from harness.rounds import interleave, run_process
from harness.tables import check_output, markdown_table, write_section


def test_a_spread_is_the_median_and_both_ends() -> None:
    assert Spread.of([3, 1, 10]) == Spread(median=3, lowest=1, highest=10)
    assert Spread.of([1, 2, 3, 10]).median == 2.5
    assert Spread(0.2, 0.1, 0.35).text(1, scale=1000) == "200.0 (100.0-350.0)"


def test_ratios_are_taken_within_each_round() -> None:
    # The machine was half as fast in the second round; the ratio does not know.
    assert ratios([3.0, 6.0], [1.0, 2.0]) == [3.0, 3.0]


def test_everybody_has_a_turn_before_anybody_has_another() -> None:
    turns: list[str] = []

    def measure(contestant: str, number: int) -> int:
        turns.append(f"{contestant}{number}")
        return number

    assert interleave(["a", "b"], 3, measure) == {"a": [0, 1, 2], "b": [0, 1, 2]}
    assert turns == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_process_answers_with_its_last_line_and_knows_its_threads() -> None:
    code = 'import os; print("noise"); print(f\'{{"threads": {os.environ["OMP_NUM_THREADS"]}}}\')'
    found = run_process([sys.executable, "-c", code], threads=3, timeout_s=60)
    assert found == {"threads": 3}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit('no memory')", "ended with 1:\nno memory"),
        ("pass", "printed no line of JSON"),
        ("print('hello')", "printed no line of JSON"),
        ("import threading; threading.Event().wait()", "took over 0 s"),
    ],
)
def test_a_process_that_fails_stops_the_benchmark_and_says_how(code: str, message: str) -> None:
    timeout_s = 0.2 if "wait" in code else 60
    with pytest.raises(BenchmarkError, match=message):
        run_process([sys.executable, "-c", code], threads=1, timeout_s=timeout_s)


def test_noise_has_shares_and_the_spread_of_the_fixed_work() -> None:
    meter = NoiseMeter()
    for _ in range(3):
        meter.probe()
    noise = meter.noise()
    assert 0 < noise.probe_s.lowest <= noise.probe_s.median <= noise.probe_s.highest
    for share in (noise.others_share, noise.stolen_share):
        assert share is None or share >= 0
    assert "of work, timed before each process" in noise.sentences()


def test_noise_says_what_the_system_does_not_say() -> None:
    sentences = Noise(Spread(0.02, 0.02, 0.03), None, None).sentences()
    assert "up to 1.50 times as long" in sentences
    assert "this system does not say" in sentences


def test_the_machine_is_described_with_what_is_installed_only() -> None:
    machine = describe_machine(["numpy", "no-such-package"])
    assert list(machine.versions) == ["numpy"]
    assert machine.processors >= 1
    assert "numpy" in machine.sentences()


def test_a_table_is_markdown_and_lines_up() -> None:
    assert markdown_table(("a", "long"), [("one", "2")]) == (
        "| a   | long |\n| --- | ---- |\n| one | 2    |"
    )


def test_results_replace_their_section_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- it: begin -->\nold\n<!-- it: end -->\nafter\n")
    write_section(path, "it", r"new \1")
    assert path.read_text() == "before\n<!-- it: begin -->\nnew \\1\n<!-- it: end -->\nafter\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_results_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    for content in ("first", "second"):
        check_output(path, "it")
        write_section(path, "it", content)
    assert path.read_text() == "<!-- it: begin -->\nsecond\n<!-- it: end -->\n"


def test_a_file_that_is_not_ours_to_write_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    for name, message in [
        ("notes.md", "notes.md: expected the lines <!-- it: begin -->"),
        ("results.txt", "expected a name that ends in .md or .json"),
        ("nowhere/results.md", "there is no folder"),
    ]:
        with pytest.raises(BenchmarkError, match=message):
            check_output(tmp_path / name, "it")
    assert (tmp_path / "notes.md").read_text() == "mine"
