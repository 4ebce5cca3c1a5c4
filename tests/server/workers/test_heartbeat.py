"""Who is found to give no sign of life, told by looks and not by a clock."""

from mlpserve.server.workers.heartbeat import HeartbeatMonitor

MOST_LOOKS = 3


class Worker:
    """Gives signs, or none, as it is told."""

    def __init__(self, *, gives: bool = True, is_open: bool = True) -> None:
        self.gives = gives
        self.is_open = is_open
        self.has_ended = False

    def gives_sign(self) -> bool:
        return self.gives


def watch(*workers: Worker) -> HeartbeatMonitor[Worker]:
    return HeartbeatMonitor(lambda: workers, most_looks=MOST_LOOKS)


def test_only_who_gives_no_sign_for_so_many_looks_is_found_and_once() -> None:
    silent, well = Worker(gives=False), Worker()
    vigil = watch(silent, well)
    assert [vigil.look() for _ in range(5)] == [[], [], [silent], [], []]


def test_a_sign_that_comes_late_makes_up_for_all_that_did_not_come() -> None:
    worker = Worker(gives=False)
    vigil = watch(worker)
    for _ in range(5):
        assert vigil.look() == vigil.look() == []
        worker.gives = True
        assert vigil.look() == []
        worker.gives = False


def test_who_is_not_open_yet_or_has_ended_need_give_none() -> None:
    starting, ended = Worker(gives=False, is_open=False), Worker(gives=False)
    ended.has_ended = True
    vigil = watch(starting, ended)
    assert [vigil.look() for _ in range(5)] == [[]] * 5
    starting.is_open = True
    assert [vigil.look() for _ in range(3)] == [[], [], [starting]]
