"""Processors of the workers: who borrows those of idle ones, and who preempts other threads."""

import pytest

from mlpserve.server.workers.processors import Place, ProcessorLender

PERIOD_S = 0.2


class Worker:
    """Uses as much of its processor as it is told, and remembers where it runs."""

    def __init__(self, processor: int, share: float) -> None:
        self.processor = processor
        self.share = share
        self.is_open = True
        self.has_ended = False
        self.place = Place()
        self.changes = 0
        self._used_s = 0.0

    def cpu_s(self) -> float | None:
        self._used_s += self.share * PERIOD_S
        return None if self.has_ended else self._used_s

    def move(self, place: Place) -> None:
        self.place = place
        self.changes += 1


class Clock:
    """Has a lender check again and again."""

    def __init__(self, *workers: Worker) -> None:
        self._lender = ProcessorLender(lambda: workers)
        self._now_s = 1000.0
        self.check()

    def check(self, times: int = 1, after_s: float = PERIOD_S) -> None:
        for _ in range(times):
            self._now_s += after_s
            self._lender.check(self._now_s)


def test_a_busy_worker_borrows_the_processors_of_all_idle_ones() -> None:
    busy, idle, other = Worker(0, 1.0), Worker(1, 0.0), Worker(2, 0.05)
    Clock(busy, idle, other).check()
    assert busy.place == Place(frozenset({1, 2}))
    assert idle.place == other.place == Place()


def test_what_is_lent_is_taken_back_as_soon_as_its_owner_has_work() -> None:
    busy, idle = Worker(0, 1.0), Worker(1, 0.0)
    clock = Clock(busy, idle)
    clock.check()
    busy.share, idle.share = 1.4, 0.9
    clock.check()
    assert busy.place == idle.place == Place(preempts=False)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_workers_that_have_equal_work_keep_to_their_own(share: float) -> None:
    first, second = Worker(0, share), Worker(1, share)
    Clock(first, second).check(3)
    assert first.place.borrowed == second.place.borrowed == frozenset()


def test_only_those_that_idle_preempt_others_on_their_own_processor() -> None:
    first, second = Worker(0, 0.6), Worker(1, 0.6)
    clock = Clock(first, second)
    clock.check()
    assert first.place == second.place == Place(preempts=False)
    first.share = second.share = 0.1
    clock.check()
    assert first.place == second.place == Place()
    first.share = second.share = 0.35
    clock.check()
    assert (first.place, first.changes) == (Place(), 2)


def test_a_load_that_varies_a_little_changes_nothing() -> None:
    busy, idle = Worker(0, 0.6), Worker(1, 0.1)
    clock = Clock(busy, idle)
    clock.check()
    for busy_share, idle_share in [(0.45, 0.3), (0.55, 0.15), (0.4, 0.35)]:
        busy.share, idle.share = busy_share, idle_share
        clock.check()
    assert (busy.place, busy.changes) == (Place(frozenset({1})), 1)
    busy.share = 0.1
    clock.check()
    assert (busy.place, busy.changes) == (Place(), 2)


def test_a_pause_of_the_supervisor_changes_nothing() -> None:
    first, second = Worker(0, 0.6), Worker(1, 0.6)
    clock = Clock(first, second)
    clock.check()
    clock.check(after_s=60.0)
    clock.check()
    assert (first.place, first.changes) == (Place(preempts=False), 1)


def test_who_starts_or_has_ended_neither_lends_nor_borrows() -> None:
    busy, starting, ended = Worker(0, 1.0), Worker(1, 0.0), Worker(2, 0.0)
    starting.is_open = False
    ended.has_ended = True
    clock = Clock(busy, starting, ended)
    clock.check(2)
    assert not busy.place.borrowed
    starting.is_open = True
    clock.check()  # what it used before, while it started, says nothing
    assert not busy.place.borrowed
    clock.check()
    assert busy.place.borrowed == {1}
    assert starting.changes == ended.changes == 0
