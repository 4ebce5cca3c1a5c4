"""Team of threads in compiled code: how they begin a step together, and wait for each other in it.

The first thread announces a step; the others, which follow, wait for that. Nobody takes the
interpreter's lock, which costs as much as a small step does. Who waits looks at a counter, gives
way to other programs, and after half a millisecond sleeps between two looks. A follower to whom
nothing is announced leaves, and is called again for the next step: see ``announce``.

A team's counters are an array of atomic integers, each in a line of the cache of its own.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types

from mlpserve.trainer.learning.numba_engine import atomics
from mlpserve.trainer.learning.numba_engine.loops import compiled

Counters: TypeAlias = npt.NDArray[np.int64]

_LINE: Final = 16  # integers: two lines of the cache, because neighbours are fetched together
_ANNOUNCED: Final = 0  # how many steps
_ARRIVED: Final = _LINE  # how often a thread has arrived anywhere
_FAILED: Final = 2 * _LINE  # whether a thread is lost
_PRESENT: Final = 3 * _LINE  # of each follower: whether it waits or works

_LOOKS: Final = 50  # before it gives way
_TURNS: Final = 1000  # before it sleeps, or leaves
_SLEEP_US: Final = 50

_sched_yield: Any = types.ExternalFunction("sched_yield", types.int32())
_usleep: Any = types.ExternalFunction("usleep", types.int32(types.uint32))


def counters(threads: int) -> Counters:
    """Return the counters of a team of so many threads, of whom none has come yet."""
    return np.zeros(_PRESENT + threads * _LINE, np.int64)


@compiled
def fail(team: Counters) -> None:
    """Let nobody wait any more: a thread is lost, and the team with it."""
    atomics.store(team, _FAILED, 1)


@compiled
def announce(team: Counters, steps: int, called: npt.NDArray[np.bool_]) -> None:
    """Announce a step; find out which followers have left, and must be called.

    Args:
        team: The team's counters.
        steps: How many steps there are with this one.
        called: (threads,) is filled.
    """
    atomics.store(team, _ANNOUNCED, steps)
    for thread in range(1, len(called)):
        called[thread] = atomics.replace(team, _PRESENT + thread * _LINE, 0, 1)


@compiled
def await_step(team: Counters, thread: int, steps: int) -> bool:
    """Wait, as a follower, until so many steps are announced; return whether to work on it.

    If not, the thread has left.
    """
    for _ in range(_TURNS):
        for _ in range(_LOOKS):
            if atomics.load(team, _ANNOUNCED) >= steps:
                return True
        if atomics.load(team, _FAILED):
            return False
        _sched_yield()
    place = _PRESENT + thread * _LINE
    atomics.store(team, place, 0)
    # A step may have been announced between the last look and leaving. Whoever of both is first to
    # take back that the thread has left decides.
    is_announced: bool = atomics.load(team, _ANNOUNCED) >= steps
    return is_announced and atomics.replace(team, place, 0, 1)


@compiled
def arrive(team: Counters) -> None:
    """Tell the others that this thread has come to where they wait for it."""
    atomics.add(team, _ARRIVED, 1)


@compiled
def await_arrivals(team: Counters, count: int) -> bool:
    """Wait for arrivals, counted from the first step; return False if a thread is lost."""
    turns = 0
    while True:
        for _ in range(_LOOKS):
            if atomics.load(team, _ARRIVED) >= count:
                return True
        if atomics.load(team, _FAILED):
            return False
        turns += 1
        if turns < _TURNS:
            _sched_yield()
        else:
            _usleep(np.uint32(_SLEEP_US))
