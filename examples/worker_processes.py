"""Worker processes that call Predict, with one client in each.

    python examples/worker_processes.py localhost:50051

A client belongs to the process that made it. So each worker makes its own when it starts: here in
the initializer of a pool; in Celery, where `worker_process_init` is signalled.
"""

import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import numpy.typing as npt

from mlpserve.client import Client

PROCESSES = 2
IMAGES_PER_TASK = 32
TASKS = 64

_client: Client


def start_worker(target: str) -> None:
    """Make the client of this worker process; its connection ends with the process."""
    global _client  # noqa: PLW0603 - how a pool's worker keeps what its tasks share
    _client = Client(target)


def classify(seed: int) -> npt.NDArray[np.int32]:
    """Return the labels of the images of one task; here, noise."""
    shape = _client.model().versions[0].input_shape
    images = np.random.default_rng(seed).integers(0, 256, (IMAGES_PER_TASK, *shape), np.uint8)
    return _client.predict(images).labels


def main(target: str) -> None:
    """Share the tasks among the workers, and count the labels."""
    with ProcessPoolExecutor(PROCESSES, initializer=start_worker, initargs=(target,)) as pool:
        labels = np.concatenate(list(pool.map(classify, range(TASKS))))
    found, counts = np.unique(labels, return_counts=True)
    print(f"{len(labels)} images:", dict(zip(found.tolist(), counts.tolist(), strict=True)))


if __name__ == "__main__":
    main(sys.argv[1])
