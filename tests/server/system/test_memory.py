"""When a process gives memory back, and when it does not even try."""

from mlpserve.server.system.memory import MemoryTrimmer

MB = 1 << 20


class Memory:
    """Memory of a process: some in use, some free but not given back.

    Attributes:
        in_use: Megabytes.
        free: Megabytes.
        trims: How often it was trimmed.
    """

    def __init__(self, in_use: int) -> None:
        self.in_use = in_use
        self.free = 0
        self.trims = 0
        self.trimmer = MemoryTrimmer(lambda: (self.in_use + self.free) * MB, self._trim)

    def look(self, times: int = 1) -> int:
        """Look so many times; return how often it was trimmed then."""
        before = self.trims
        for _ in range(times):
            self.trimmer.look()
        return self.trims - before

    def _trim(self) -> None:
        self.free = 0
        self.trims += 1


def test_what_large_requests_leave_is_given_back_and_what_small_ones_take_is_not() -> None:
    memory = Memory(in_use=40)
    memory.free = 15
    assert memory.look(100) == 0
    memory.free = 200
    assert memory.look(100) == 1
    assert memory.free == 0


def test_what_was_in_use_when_it_was_trimmed_is_given_back_later() -> None:
    memory = Memory(in_use=160)
    memory.in_use, memory.free = 160 + 120, 200
    assert memory.look() == 1
    memory.in_use, memory.free = 160, 120  # it is free, and the process is no smaller
    memory.look(3)
    assert memory.free == 0


def test_a_process_that_needs_more_than_at_first_is_trimmed_now_and_then_only() -> None:
    memory = Memory(in_use=10)
    memory.in_use = 400
    assert memory.look(100) <= 100 / 2
