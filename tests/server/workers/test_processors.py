"""Processors of the workers: that of an idle worker is lent to busy ones, and taken back."""

import pytest

from mlpserve.server.workers.processors import ProcessorLender

PERIOD_S = 0.2


class Worker:
    """Uses as much of its processor as it is told, and remembers what it borrows."""

    def __init__(self, processor: int, share: float) -> None:
        self.processor = processor
        self.share = share
        self.is_open = True
        self.has_ended = False
        self.borrowed: set[int] = set()
        self.changes = 0
        self._used_s = 0.0

    def cpu_s(self) -> float | None:
        self._used_s += self.share * PERIOD_S
        return None if self.has_ended else self._used_s

    def borrow(self, processors: set[int]) -> None:
        self.borrowed = processors
        self.changes += 1


class Clock:
    """Has a lender check again and again."""

    def __init__(self, *workers: Worker) -> None:
        self._lender = ProcessorLender(lambda: workers)
        self._now_s = 1000.0
        self.check()

    def check(self, times: int = 1) -> None:
        for _ in range(times):
            self._now_s += PERIOD_S
            self._lender.check(self._now_s)


def test_a_busy_worker_borrows_the_processors_of_all_idle_ones() -> None:
    busy, idle, other = Worker(0, 1.0), Worker(1, 0.0), Worker(2, 0.05)
    Clock(busy, idle, other).check()
    assert (busy.borrowed, idle.borrowed, other.borrowed) == ({1, 2}, set(), set())


def test_what_is_lent_is_taken_back_as_soon_as_its_owner_has_work() -> None:
    busy, idle = Worker(0, 1.0), Worker(1, 0.0)
    clock = Clock(busy, idle)
    clock.check()
    busy.share, idle.share = 1.4, 0.9
    clock.check()
    assert (busy.borrowed, idle.borrowed) == (set(), set())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_workers_that_have_equal_work_keep_to_their_own(share: float) -> None:
    first, second = Worker(0, share), Worker(1, share)
    Clock(first, second).check(3)
    assert first.changes == second.changes == 0


def test_a_load_that_varies_a_little_changes_nothing() -> None:
    busy, idle = Worker(0, 0.6), Worker(1, 0.1)
    clock = Clock(busy, idle)
    clock.check()
    for busy_share, idle_share in [(0.45, 0.3), (0.55, 0.15), (0.4, 0.35)]:
        busy.share, idle.share = busy_share, idle_share
        clock.check()
    assert (busy.borrowed, busy.changes) == ({1}, 1)
    busy.share = 0.1
    clock.check()
    assert (busy.borrowed, busy.changes) == (set(), 2)


def test_who_starts_or_has_ended_neither_lends_nor_borrows() -> None:
    busy, starting, ended = Worker(0, 1.0), Worker(1, 0.0), Worker(2, 0.0)
    starting.is_open = False
    ended.has_ended = True
    clock = Clock(busy, starting, ended)
    clock.check(2)
    assert busy.changes == 0
    starting.is_open = True
    clock.check()  # what it used before, while it started, says nothing
    assert busy.changes == 0
    clock.check()
    assert busy.borrowed == {1}
