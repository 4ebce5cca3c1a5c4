"""Heartbeat: workers that hang are found by counting checks, and not by a clock."""

from mlpserve.server.workers.heartbeat import HeartbeatMonitor

MAX_MISSED = 3


class Worker:
    """Has heartbeats, or none, as it is told."""

    def __init__(self, *, beats: bool = True, is_open: bool = True) -> None:
        self.beats = beats
        self.is_open = is_open
        self.has_ended = False

    def check_heartbeat(self) -> bool:
        return self.beats


def watch(*workers: Worker) -> HeartbeatMonitor[Worker]:
    return HeartbeatMonitor(lambda: workers, max_missed=MAX_MISSED)


def test_only_a_worker_that_misses_so_many_heartbeats_is_found_and_once() -> None:
    silent, well = Worker(beats=False), Worker()
    monitor = watch(silent, well)
    assert [monitor.check() for _ in range(5)] == [[], [], [silent], [], []]


def test_a_heartbeat_that_comes_late_makes_up_for_all_that_were_missed() -> None:
    worker = Worker(beats=False)
    monitor = watch(worker)
    for _ in range(5):
        assert monitor.check() == monitor.check() == []
        worker.beats = True
        assert monitor.check() == []
        worker.beats = False


def test_a_worker_that_is_not_open_yet_or_has_ended_needs_none() -> None:
    starting, ended = Worker(beats=False, is_open=False), Worker(beats=False)
    ended.has_ended = True
    monitor = watch(starting, ended)
    assert [monitor.check() for _ in range(5)] == [[]] * 5
    starting.is_open = True
    assert [monitor.check() for _ in range(3)] == [[], [], [starting]]
