"""Tasks of a participant and their outcomes, and how the two travel between processes.

Imports no numerical library: a process reads its task before it loads the first of them.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Task:
    """One training run.

    Attributes:
        participant: A key of ``PARTICIPANTS``.
        data: The path of the .npz to learn from.
        hidden_sizes: The width of each hidden layer.
        activation: Of the hidden layers: tanh or relu.
        epochs: How many are timed; one more comes before them.
        threads: How many a participant may use.
        seed: Of the initial weights and the order of the images.
    """

    participant: str
    data: str
    hidden_sizes: tuple[int, ...]
    activation: str
    epochs: int
    threads: int
    seed: int

    def to_json(self) -> str:
        """Return the task as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Return the task of a line that ``to_json`` made."""
        fields = json.loads(text)
        return cls(**{**fields, "hidden_sizes": tuple(fields["hidden_sizes"])})


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task.

    Attributes:
        seconds: How long each timed epoch took.
        test_accuracy: The share of the test images classified rightly after all epochs, 0 to 1;
            None where there is no such thing.
        costs: The tutorial's cost before each update; only the forms of the seed recipe have it.
    """

    seconds: list[float]
    test_accuracy: float | None = None
    costs: list[float] = field(default_factory=list)


class Stopwatch:
    """Notes when epochs end. The first one only warms up: code is compiled, caches are filled."""

    def __init__(self) -> None:
        self._ends_s: list[float] = []

    def end_epoch(self) -> None:
        """Note that an epoch has ended now."""
        self._ends_s.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return how long each epoch after the first took."""
        return [end - start for start, end in pairwise(self._ends_s)]


def epoch_operations(layer_sizes: tuple[int, ...], images: int) -> int:
    """Return the floating-point operations of the matrix products of one epoch.

    A product of (N, i) and (i, o) is 2 N i o operations, a multiplication and an addition each.
    Every layer has one product forward and one for the gradient of its weights, and every layer but
    the first one for the gradient of its inputs: nothing learns from that of the images. All else,
    activations, softmax and the optimizer, is left out, so that a share of the peak is never
    flattered.
    """
    products = [fan_in * fan_out for fan_in, fan_out in pairwise(layer_sizes)]
    return 2 * images * (2 * sum(products) + sum(products[1:]))
