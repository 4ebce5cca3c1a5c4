"""Data-parallel training of one network: two processes beside threads, and two machines on paper.

    python benchmarks/data_parallel.py

First: a step of training on two processors of this machine, in four ways, in turn: one thread; one
thread whose BLAS has two; the trainer's two threads; two processes with parameters and gradients in
shared memory. The last two do the same: each learns from half of the batch, then adds up half of
the gradients and updates these parameters. Then: the step of two machines like this one, by the
time of half a batch and the time that the gradients take on the wire.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Barrier
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from harness.arguments import positive
from harness.rounds import interleave
from harness.tables import markdown_table
from mlpserve.model.activations import FloatArray
from mlpserve.trainer.learning.backprop import Backpropagation, Batch
from mlpserve.trainer.learning.initialization import he
from mlpserve.trainer.learning.optimizers import Adam, Step
from mlpserve.trainer.learning.parameters import Vector, vector_of, views
from mlpserve.trainer.learning.thread_pool import ThreadPool, shard

_SIZES: Final = (784, 1536, 768, 10)
_NETWORK: Final = "-".join(map(str, _SIZES))
_BATCHES: Final = (128, 256, 1024)
_PARAMETERS: Final = sum((a + 1) * b for a, b in pairwise(_SIZES))
_MEGABYTES: Final = 4 * _PARAMETERS / 1e6
_IMAGES: Final = 60_000  # of an epoch
_GBITS: Final = (1, 10, 25)
_HALVES: Final = 2
_STEPS: Final = 8  # of one measurement
_GO: Final = "go on"
_WAYS: Final = ("one thread", "two of BLAS", "two threads", "two processes")


@dataclass(frozen=True)
class Cost:
    """The cost of a step.

    Attributes:
        wall_s: Seconds by the clock.
        cpu_s: Seconds of all processors together.
    """

    wall_s: float
    cpu_s: float


class _Worker:
    """One of those that share each step: a part of the batch, then a part of the update."""

    def __init__(
        self, index: int, batch_size: int, gradients: FloatArray, parameters: Vector
    ) -> None:
        """Prepare its part; (workers, P) ``gradients`` and (P,) ``parameters`` are everybody's."""
        count = len(gradients)
        network = he(_SIZES, "relu", seed=0).astype(np.float32)
        network = network.with_parameters(views(parameters, network))
        rng = np.random.default_rng(0)
        images = rng.random((batch_size, _SIZES[0]), np.float32)

        def fill(rows: slice, out: FloatArray) -> None:
            out[:] = images[rows]

        self._batch = Batch(rng.integers(0, _SIZES[-1], batch_size), fill)
        self._rows = shard(batch_size, index, count)
        self._part = shard(_PARAMETERS, index, count)
        self._gradients = gradients
        self._optimizer = Adam(parameters)
        self._pass = Backpropagation(network, max_rows=-(-batch_size // count))
        self._pass.gradient = gradients[index]
        self._pass.gradients = views(gradients[index], network)

    def learn(self) -> None:
        """Write the gradient of its part of the batch."""
        self._pass.run(self._batch, self._rows)

    def update(self) -> None:
        """Add up its part of the gradients and update these parameters, once all have learned."""
        total, *others = self._gradients
        for gradient in others:
            total[self._part] += gradient[self._part]
        self._optimizer.update(self._part, total, Step(1, 1e-4))


class _Threads:
    """Workers that are threads of this process."""

    def __init__(self, batch_size: int, workers: int, blas_threads: int) -> None:
        gradients = np.zeros((workers, _PARAMETERS), np.float32)
        parameters = vector_of(he(_SIZES, "relu", seed=0).astype(np.float32))
        self._workers = [
            _Worker(index, batch_size, gradients, parameters) for index in range(workers)
        ]
        self._blas_threads = blas_threads
        self._pool = ThreadPool(workers)

    def cost(self) -> Cost:
        """Do some steps; return what one took."""
        with threadpool_limits(self._blas_threads):
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            for _ in range(_STEPS):
                self._pool.run(lambda index: self._workers[index].learn())
                self._pool.run(lambda index: self._workers[index].update())
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        return Cost(wall_s / _STEPS, cpu_s / _STEPS)

    def end(self) -> None:
        """End the threads."""
        with self._pool:
            pass


class _Processes:
    """Workers that are processes, which see the same memory."""

    def __init__(self, batch_size: int) -> None:
        context = get_context("spawn")
        self._memory = SharedMemory(create=True, size=4 * _PARAMETERS * (_HALVES + 1))
        _vectors(self._memory)[-1] = vector_of(he(_SIZES, "relu", seed=0).astype(np.float32))
        self._barrier = context.Barrier(_HALVES)  # kept until the processes have it
        self._ends, self._processes = [], []
        for index in range(_HALVES):
            ours, theirs = context.Pipe()
            arguments = (index, batch_size, self._memory.name, self._barrier, theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            self._ends.append(ours)
            self._processes.append(process)

    def cost(self) -> Cost:
        """Do some steps; return what one took."""
        for end in self._ends:
            end.send(_GO)
        costs = [end.recv() for end in self._ends]
        return Cost(max(cost.wall_s for cost in costs), sum(cost.cpu_s for cost in costs))

    def end(self) -> None:
        """End the processes, and give the memory back."""
        for end, process in zip(self._ends, self._processes, strict=True):
            end.send(None)
            process.join()
        self._memory.close()
        self._memory.unlink()


def _vectors(memory: SharedMemory) -> FloatArray:
    """Return (workers + 1, P): the gradients, and last the parameters."""
    return np.ndarray((_HALVES + 1, _PARAMETERS), np.float32, memory.buf)


def _serve(index: int, batch_size: int, memory: str, barrier: Barrier, end: Connection) -> None:
    """Be a worker in a process of its own: some steps each time that it is told to go on."""
    vectors = _vectors(shared := SharedMemory(memory))
    worker = _Worker(index, batch_size, vectors[:-1], vectors[-1])
    with threadpool_limits(1):
        while end.recv() == _GO:
            barrier.wait()
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            for _ in range(_STEPS):
                worker.learn()
                barrier.wait()
                worker.update()
                barrier.wait()
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
            end.send(Cost(wall_s / _STEPS, cpu_s / _STEPS))
    del vectors, worker
    shared.close()


def main() -> int:
    """Print what was found; return the exit code."""
    options = _parser().parse_args()
    halves = [batch // _HALVES for batch in _BATCHES]
    costs = {batch: _costs(batch, options.repeats) for batch in {*_BATCHES, *halves}}
    sum_ms = 1e3 * _sum_s()
    print(f"{_NETWORK}: {_PARAMETERS:,} parameters, gradients of {_MEGABYTES:.1f} MB.")
    print(f"Adding up two of them takes one thread {sum_ms:.1f} ms.\n")
    headings = ["batch", "way", "step, ms", "times one thread", "CPU s an epoch"]
    print(markdown_table(headings, [row for batch in _BATCHES for row in _rows(batch, costs)]))
    print("\nTwo machines, each with two threads for half of the batch, as times one of them:\n")
    on_wire_ms = {gbit: wire_ms(gbit) for gbit in _GBITS}
    headings = ["batch", "half a batch, ms"]
    headings += [f"{gbit} Gbit/s: wire {on_wire_ms[gbit]:.1f} ms" for gbit in _GBITS]
    rows = [row_of_machines(batch, costs, on_wire_ms) for batch in _BATCHES]
    print(markdown_table(headings, rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Data-parallel training, measured and on paper.")
    parser.add_argument(
        "--repeats", type=positive, default=7, metavar="N", help="rounds; default: 7"
    )
    return parser


def _costs(batch_size: int, repeats: int) -> dict[str, Cost]:
    """Return the median cost of a step each way; the first round only warms up."""
    makers: dict[str, Callable[[], _Threads | _Processes]] = {
        "one thread": partial(_Threads, batch_size, 1, 1),
        "two of BLAS": partial(_Threads, batch_size, 1, 2),
        "two threads": partial(_Threads, batch_size, 2, 1),
        "two processes": partial(_Processes, batch_size),
    }
    with ExitStack() as stack:
        ways = {name: make() for name, make in makers.items()}
        for way in ways.values():
            stack.callback(way.end)
        found = interleave(_WAYS, 1 + repeats, lambda name, _: ways[name].cost())
    return {
        name: Cost(
            statistics.median(cost.wall_s for cost in costs[1:]),
            statistics.median(cost.cpu_s for cost in costs[1:]),
        )
        for name, costs in found.items()
    }


def _sum_s() -> float:
    """Return the median seconds of adding one gradient to another."""
    total, other = np.ones((2, _PARAMETERS), np.float32)
    found = []
    for _ in range(20):
        began_s = time.perf_counter()
        total += other
        found.append(time.perf_counter() - began_s)
    return statistics.median(found)


def _rows(batch: int, costs: dict[int, dict[str, Cost]]) -> list[list[str]]:
    one_s = costs[batch]["one thread"].wall_s
    return [
        [
            str(batch),
            name,
            f"{1e3 * cost.wall_s:.1f}",
            f"{one_s / cost.wall_s:.2f}",
            f"{cost.cpu_s * _IMAGES / batch:.1f}",
        ]
        for name, cost in costs[batch].items()
    ]


def wire_ms(gbit: float) -> float:
    """Return how long the gradients take between two machines at so many Gbit/s.

    An all-reduce among n sends and receives 2 (n - 1) / n times the gradients: of two, once.
    """
    return 8 * _MEGABYTES / gbit


def row_of_machines(
    batch: int, costs: dict[int, dict[str, Cost]], on_wire_ms: dict[int, float]
) -> list[str]:
    """Return the speed of two machines: with the wire after the work, and behind all of it."""
    whole_ms = 1e3 * costs[batch]["two threads"].wall_s
    half_ms = 1e3 * costs[batch // _HALVES]["two threads"].wall_s
    return [
        str(batch),
        f"{half_ms:.1f}",
        *(
            f"{whole_ms / (half_ms + wire):.2f} to {whole_ms / max(half_ms, wire):.2f}"
            for wire in on_wire_ms.values()
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
