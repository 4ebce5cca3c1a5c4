"""Simulation of the queue of one worker, for requests of the same size.

The rule is that of `mlpserve.server.inference`: a worker takes up what has come, runs one pass over
as many of these as a batch may have images, answers them one after the other, and looks again.
Nothing waits for others to come. What costs time, and how much, is in ``Costs``.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

import numpy as np
import numpy.typing as npt

MAX_BATCH_IMAGES: Final = 512  # the default of `--max-batch-rows`
# Of a request's cost, what is due before its pass; the rest is its answer. Source: "Where the time
# of a small request goes", benchmarks/README.md.
_SHARE_BEFORE: Final = 0.45

Seconds = npt.NDArray[np.float64]
# Takes when a request came and when its answer left; returns when the next one comes, if any.
Answered = Callable[[float, float], float | None]


@dataclass(frozen=True)
class Costs:
    """Seconds that things take.

    Attributes:
        wake_s: To wake a worker that sleeps and a client that waits, and the way between them.
        pass_s: A pass, however many images it has.
        request_s: A request: to read, to check and to answer.
        image_s: An image: to read and to compute.
        client_s: A client, to take an answer and to send the next request.
    """

    wake_s: float
    pass_s: float
    request_s: float
    image_s: float
    client_s: float

    def capacity_per_s(self, images: int) -> float:
        """Return how many requests of so many images a worker can answer in a second at most."""
        together = max(1, MAX_BATCH_IMAGES // images)
        return 1 / (self.request_s + images * self.image_s + self.pass_s / together)


class Disturbance:
    """What the machine takes away from a worker, now and then.

    Drawn from calls that were alone: by how much each took longer than half of them did.

    Args:
        alone_s: The seconds that each of these took; none for a machine that disturbs nothing.
        rng: Draws.

    Attributes:
        slowdown: How many times as long work takes with it, in the mean.
    """

    def __init__(self, alone_s: Seconds, rng: np.random.Generator) -> None:
        self._rng = rng
        self._usual_s = float(np.median(alone_s)) if len(alone_s) else 1.0
        excess_s = np.maximum(0.0, alone_s - self._usual_s)
        self._excess_s = excess_s if len(alone_s) else np.zeros(1)
        self.slowdown = 1 + float(np.mean(self._excess_s)) / self._usual_s

    def of(self, busy_s: float) -> float:
        """Return the seconds that are lost while a worker is busy for so long."""
        times = self._rng.poisson(busy_s / self._usual_s)
        return float(self._rng.choice(self._excess_s, times).sum()) if times else 0.0


def run_worker(
    arrivals: Iterable[float],
    images: int,
    costs: Costs,
    disturbance: Disturbance,
    answered: Answered,
) -> None:
    """Have a worker answer requests until there are none.

    Args:
        arrivals: When those come that do not depend on answers.
        images: Of each request.
        costs: What things take.
        disturbance: What is lost beside.
        answered: Is told of each answer.
    """
    coming, waiting, now = list(arrivals), deque[float](), 0.0
    heapify(coming)
    together = max(1, MAX_BATCH_IMAGES // images)
    before_s = _SHARE_BEFORE * costs.request_s
    while coming or waiting:
        if not waiting and coming[0] >= now:
            now = coming[0] + costs.wake_s
        began = now
        while coming and coming[0] <= now:
            waiting.append(heappop(coming))
            now += before_s
        batch = [waiting.popleft() for _ in range(min(len(waiting), together))]
        now += costs.pass_s + len(batch) * images * costs.image_s
        now += disturbance.of(now - began)
        for arrival in batch:
            now += costs.request_s - before_s
            following = answered(arrival, now)
            if following is not None:
                heappush(coming, following)


def open_loop(arrivals: Seconds, images: int, costs: Costs, disturbance: Disturbance) -> Seconds:
    """Return how long each request took that came at a time of its own, in the order of answers."""
    took: list[float] = []
    run_worker(
        arrivals.tolist(),
        images,
        costs,
        disturbance,
        lambda arrival, answer: took.append(answer + costs.client_s - arrival),
    )
    return np.array(took)


def closed_loop(
    concurrency: int, images: int, requests: int, costs: Costs, disturbance: Disturbance
) -> Seconds:
    """Return how long each request took, where each connection sends the next after an answer.

    One thread has all connections: it takes one answer after the other.
    """
    took: list[float] = []
    free_at, left = concurrency * costs.client_s, requests - concurrency

    def answered(arrival: float, answer: float) -> float | None:
        nonlocal free_at, left
        free_at = max(free_at, answer) + costs.client_s
        took.append(free_at - arrival)
        left -= 1
        return free_at if left >= 0 else None

    first = [(place + 1) * costs.client_s for place in range(concurrency)]
    run_worker(first, images, costs, disturbance, answered)
    return np.array(took)


def poisson(per_s: float, requests: int, rng: np.random.Generator) -> Seconds:
    """Return when requests come that know nothing of each other."""
    return np.cumsum(rng.exponential(1 / per_s, requests))


def several_workers(
    per_s: float,
    workers: int,
    *,
    images: int,
    requests: int,
    costs: Costs,
    disturbance: Disturbance,
    rng: np.random.Generator,
) -> Seconds:
    """Return how long requests took that many clients spread over some workers.

    Each client goes round all of them, but clients know nothing of each other: what comes to one
    worker is as if it were chosen by lot.
    """
    arrivals = poisson(per_s, requests, rng)
    chosen = rng.integers(0, workers, requests)
    took = [
        open_loop(arrivals[chosen == worker], images, costs, disturbance)
        for worker in range(workers)
    ]
    return np.concatenate(took)
