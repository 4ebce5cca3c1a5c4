"""Turns: who is measured when, and the process that each measurement is.

Every measurement is a process of its own, so that no library finds the memory, the threads or the
caches that another one left behind.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest.mock import patch

from harness.errors import BenchmarkError

_Contestant = TypeVar("_Contestant")
_Measured = TypeVar("_Measured")

_ERROR_LINES_SHOWN: Final = 15
_PARTS: Final = ("server", "trainer", "model", "datasets", "client", "proto")
# What the libraries of this world size their pools of threads by.
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def interleave(
    contestants: Sequence[_Contestant],
    repeats: int,
    measure: Callable[[_Contestant, int], _Measured],
) -> dict[_Contestant, list[_Measured]]:
    """Measure all contestants once, then all of them again: A B C, A B C, ...

    So a slow minute of the machine is everybody's, and each round has ratios of its own; those are
    compared that stand side by side.

    Args:
        contestants: Who takes part, in the order of their turns.
        repeats: The number of rounds, at least 1.
        measure: Takes a contestant and the number of the round, from 0.

    Returns:
        For each contestant what was measured, one a round.
    """
    measured: dict[_Contestant, list[_Measured]] = {contestant: [] for contestant in contestants}
    for number in range(repeats):
        for contestant in contestants:
            measured[contestant].append(measure(contestant, number))
    return measured


def run_process(command: Sequence[str], *, threads: int, timeout_s: float) -> dict[str, Any]:
    """Run a process to its end and return the JSON object that its last line of output is.

    Args:
        command: The program and its arguments.
        threads: How many threads its libraries are told to use.
        timeout_s: So long it may take.

    Raises:
        BenchmarkError: It failed, took too long, or printed something else.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=True
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stderr.splitlines()[-_ERROR_LINES_SHOWN:])
        raise BenchmarkError(
            f"a measured process ended with {error.returncode}:\n{last}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"a measured process took over {timeout_s:.0f} s") from error
    except (IndexError, json.JSONDecodeError) as error:
        raise BenchmarkError("a measured process printed no line of JSON") from error
    return answer


@contextmanager
def sources_of(checkout: Path | None) -> Iterator[None]:
    """Have processes that are started import our packages from a checkout; None for this one."""
    paths = [str(checkout / part) for part in _PARTS] if checkout else []
    with patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}):
        yield


def pin_to_processors(count: int) -> None:
    """Keep this process, and all threads that it will start, on so many processors.

    It is the one limit that binds every library alike, also those that count the machine's
    processors themselves. To be called before any of them is imported. Where the system cannot pin
    processes, the variables that ``run_process`` sets are all there is.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        # From the end: the first one serves most interrupts.
        os.sched_setaffinity(0, allowed[-count:])
