import os
import subprocess
import sys

import pytest

from mlpserve.server.telemetry.tallies import Counts, Pair, Tallies
from mlpserve.server.workers.shared_generation import SharedGeneration

PAIR = Pair("digits", 1, 2)
PROGRAM = """
import sys
from mlpserve.server.workers.shared_generation import SharedGeneration
from mlpserve.server.telemetry.tallies import Counts, Pair, Tallies
board = SharedGeneration.attach(int(sys.argv[1]))
tallies = Tallies.join(board.tallies, board.descriptor)
tallies.add(Pair("digits", 1, 2), Counts(compared=10, agreeing=9))
print(tallies.is_first, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def board() -> SharedGeneration:
    return SharedGeneration.create()


def start(board: SharedGeneration) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(board.descriptor)],
        pass_fds=[board.descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_several_processes_count_is_added_up_and_outlives_them(
    board: SharedGeneration,
) -> None:
    with start(board) as one:
        assert line(one) == "True"
        with start(board) as other:
            assert line(other) == "False"
            counted = Tallies(board.tallies, 100)
            assert counted.total(PAIR) == Counts(compared=20, agreeing=18)
            one.kill()
            one.wait()
            with start(board) as third:  # in the place of the dead
                assert line(third) == "True"
                third.communicate()
            assert counted.total(PAIR) == Counts(compared=30, agreeing=27)
            other.communicate()


def test_pairs_are_counted_apart() -> None:
    tallies = Tallies.alone()
    for number in range(20):
        tallies.add(Pair("digits", 1, number), Counts(compared=number, dropped=1))
    for number in range(20):
        assert tallies.total(Pair("digits", 1, number)) == Counts(compared=number, dropped=1)
    assert tallies.total(Pair("letters", 1, 2)) == Counts()


def test_the_pair_that_was_counted_longest_ago_makes_room() -> None:
    tallies = Tallies.alone()
    tallies.add(PAIR, Counts(compared=1))
    for number in range(100):
        tallies.add(Pair("letters", 1, number), Counts(compared=5))
        tallies.add(PAIR, Counts(compared=1))
    assert tallies.total(PAIR) == Counts(compared=101)
    assert tallies.total(Pair("letters", 1, 99)) == Counts(compared=5)
    assert tallies.total(Pair("letters", 1, 0)) == Counts()


def test_an_own_descriptor_of_the_board_is_left_open(board: SharedGeneration) -> None:
    Tallies.join(board.tallies, board.descriptor)
    assert os.fstat(board.descriptor).st_size > 0
