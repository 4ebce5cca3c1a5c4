"""Runs the tasks of the training benchmark in turn, each in a process of its own."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final

from harness.rounds import interleave, run_process, sources_of
from trainers.participants import BEFORE, NUMPY_ENGINE, PARTICIPANTS, PEAK
from trainers.tasks import Outcome, Task

Measured = Mapping[Task, Sequence[Outcome]]

_WORKER: Final = Path(__file__).parents[1] / "training_worker.py"
_TIMEOUT_S: Final = 3600
# The network that the tutorial trains.
_SEED_NETWORK: Final = ((16, 16), "tanh")
_SEED_ITERATIONS: Final = 150
# Here the tutorial's first learning rate, 0.5, is too high: its published cost rises from 0.073 to
# 0.115, until the rate falls. Any rounding grows some 300,000 times on the way: another order of a
# float64 sum, 1e-16, to 3e-11, and the 6e-8 of float32 to 1e-2. From there on it shrinks again.
UNSTABLE_ITERATIONS: Final = range(64, 77)


@dataclass(frozen=True)
class Shape:
    """A network to be trained: its hidden layers and their activation."""

    hidden_sizes: tuple[int, ...]
    activation: str


@dataclass(frozen=True)
class CostDifference:
    """The differences between the costs of two forms of the seed recipe.

    Attributes:
        before: The largest difference of their costs before the unstable iterations.
        during: The largest in the unstable iterations.
        at_the_end: That of the last iteration.
    """

    before: float
    during: float
    at_the_end: float


@dataclass(frozen=True)
class Runner:
    """Measures tasks.

    Attributes:
        data: The .npz that all learn from.
        before_each: Called before each process.
        say: Takes a line of progress.
        baseline: A checkout with an earlier trainer, which takes part; None for none.
    """

    data: Path
    before_each: Callable[[], None]
    say: Callable[[str], None]
    baseline: Path | None = None

    def epochs(
        self,
        libraries: Sequence[str],
        shapes: Sequence[Shape],
        threads: Sequence[int],
        *,
        epochs: int,
        repeats: int,
    ) -> Measured:
        """Measure each library, and the peak beside it, on each network with each thread count."""
        before = [BEFORE] if self.baseline else []
        tasks = [
            self._task(participant, shape, epochs, count)
            for count, shape, participant in product(threads, shapes, [PEAK, *before, *libraries])
        ]
        return interleave(tasks, repeats, self._measure)

    def seed_forms(
        self, forms: Sequence[str], threads: Sequence[int], *, iterations: int, repeats: int
    ) -> Measured:
        """Measure iterations over all images with each form of the seed recipe."""
        tasks = [
            self._task(form, Shape(*_SEED_NETWORK), iterations, count)
            for count, form in product(threads, forms)
        ]
        return interleave(tasks, repeats, self._measure)

    def cost_difference(self, form: str, other: str) -> CostDifference:
        """Return how far two forms of the seed recipe come apart over its 150 iterations."""
        one, two = (
            self._measure(self._task(name, Shape(*_SEED_NETWORK), _SEED_ITERATIONS - 1, 1), 0)
            for name in (form, other)
        )
        differences = [abs(cost - twin) for cost, twin in zip(one.costs, two.costs, strict=True)]
        first, end = UNSTABLE_ITERATIONS.start, UNSTABLE_ITERATIONS.stop
        return CostDifference(
            before=max(differences[:first]),
            during=max(differences[first:end]),
            at_the_end=differences[-1],
        )

    def _task(self, participant: str, shape: Shape, epochs: int, threads: int) -> Task:
        return Task(
            participant=participant,
            data=str(self.data),
            hidden_sizes=shape.hidden_sizes,
            activation=shape.activation,
            epochs=epochs,
            threads=threads,
            seed=0,
        )

    def _measure(self, task: Task, round_number: int) -> Outcome:
        """Run a task; each round has initial weights and an order of the images of its own."""
        task = replace(task, seed=round_number)
        self.before_each()
        found = self._run(task)
        layers = "-".join(map(str, task.hidden_sizes))
        self.say(
            f"round {round_number + 1}, {task.threads} thread(s), {layers} {task.activation}, "
            f"{PARTICIPANTS[task.participant].title}: {min(found.seconds):.3f} s at best"
        )
        return found

    def _run(self, task: Task) -> Outcome:
        worker, checkout = _WORKER, None
        if task.participant == BEFORE and self.baseline is not None:
            task = replace(task, participant=NUMPY_ENGINE)
            worker, checkout = self.baseline / "benchmarks" / _WORKER.name, self.baseline
        command = [sys.executable, str(worker), task.to_json()]
        with sources_of(checkout):
            return Outcome(**run_process(command, threads=task.threads, timeout_s=_TIMEOUT_S))
