"""Thread pool of the training: does the shards of one piece of work at the same time.

NumPy lets go of the interpreter's lock in its arithmetic, so threads use as many processors as
there are. Each shard is computed by one BLAS thread; more of those would wait for each other.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

import numpy as np

_Result = TypeVar("_Result")


class ThreadPool:
    """A fixed number of threads, of which the caller's is one; a context manager that ends them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._others: ThreadPoolExecutor | None = None
        if size > 1:
            # What NumPy warns of is a setting of each thread: the others do as the caller does.
            warn_alike = partial(np.seterr, **np.geterr())
            self._others = ThreadPoolExecutor(size - 1, "trainer", initializer=warn_alike)

    def run(self, work: Callable[[int], _Result]) -> list[_Result]:
        """Call ``work`` with each index below the size, at once; return the results in order.

        Raises whatever a shard raises, after all have ended.
        """
        if self._others is None:
            return [work(0)]
        futures = [self._others.submit(work, index) for index in range(1, self.size)]
        try:
            first = work(0)
        finally:
            # Whoever is told of a failure may go on to change what the others still work on.
            others = [future.exception() for future in futures]
        for error in others:
            if error is not None:
                raise error
        return [first, *(future.result() for future in futures)]

    def submit(self, work: Callable[[int], _Result], index: int) -> Future[_Result]:
        """Let one of the other threads call ``work`` with an index, while the caller goes on."""
        if self._others is None:
            raise RuntimeError("a pool of one thread has no others")
        return self._others.submit(work, index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._others is not None:
            self._others.shutdown()


def shard(count: int, index: int, size: int) -> slice:
    """Return shard ``index`` of ``size`` of ``count`` things, in their order."""
    return slice(count * index // size, count * (index + 1) // size)
