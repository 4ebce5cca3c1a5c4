"""Times the server's own forward pass without a server: what no server can exceed.

    python in_process.py MODELS BATCH THREADS SECONDS

Prints images a second, all threads together, and the processor time of one, as a line of JSON.
"""

import itertools
import json
import sys
import time
from pathlib import Path
from threading import Barrier, Thread

import numpy as np

from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.folder import model_names, versions
from mlpserve.model.versions import load_version

_SEED = 3
_COLD_BYTES = 32 << 20  # what 40 requests of 1024 images take


def main() -> None:
    """Measure."""
    folder, batch, threads, seconds = sys.argv[1:]
    models = Path(folder)
    (name,) = model_names(models)
    model = CompiledModel(load_version(models, name, versions(models, name)[0]))
    begin = Barrier(int(threads))
    rates: list[float] = []
    costs: list[float] = []

    def measure() -> None:
        begin.wait()
        rate, cpu_s = speed(model, int(batch), float(seconds))
        rates.append(rate)
        costs.append(cpu_s)

    workers = [Thread(target=measure) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps({"images_per_s": sum(rates), "cpu_s_per_image": min(costs)}))


def speed(model: CompiledModel, batch: int, seconds: float) -> tuple[float, float]:
    """Return how many images a second a thread classifies, and its processor time for each.

    They come from memory, as requests do, and not from a cache.
    """
    width = model.metadata.input.values_per_image
    batches = max(1, _COLD_BYTES // (batch * width))
    shape = (batches, batch, width)
    requests = itertools.cycle(np.random.default_rng(_SEED).integers(0, 256, shape, np.uint8))
    workspace = Workspace()
    model.classify([next(requests)], workspace)
    count, started, cpu_before_s = 0, time.perf_counter(), time.thread_time()
    while (elapsed := time.perf_counter() - started) < seconds:
        model.classify([next(requests)], workspace)
        count += batch
    return count / elapsed, (time.thread_time() - cpu_before_s) / count


if __name__ == "__main__":
    main()
