"""``mlpserve-predict --engine ray`` on a local cluster of several nodes, beside one process.

    python benchmarks/batch_prediction.py --rows 10000000 --kill-node --folder /tmp/batch

Needs what ``make test-distributed`` installs, and 1 KB of disk an image. With ``--kill-node``, a
node is killed once half of the parts are there. All parts are compared with those of one process,
byte by byte, and their rows are counted. The images are deleted at the end.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.versions import load_version
from predicting_ten_million import make_images

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

_SHARD_ROWS: Final = 1_000_000
_PASSES: Final = 300
_ROWS: Final = 1024
_OBJECT_STORE_BYTES: Final = 100_000_000
_EVERY_S: Final = 0.2


def forward_pass_images_per_s(models: Path) -> float:
    """Return what the network alone classifies in a second of one processor, images at hand."""
    model = CompiledModel(load_version(models, "digits", 1), reproducible=True)
    images = np.random.default_rng(1).integers(0, 256, (_ROWS, 784), np.uint8)
    workspace = Workspace()
    began_s = time.process_time()
    for _ in range(_PASSES):
        model.classify([images], workspace)
    return _PASSES * _ROWS / (time.process_time() - began_s)


def predict(command: list[str], output: Path, meanwhile: Callable[[int], None]) -> float:
    """Run the command; return how many seconds it took.

    Args:
        command: The command.
        output: Its folder.
        meanwhile: Is told how many parts there are, again and again.
    """
    shutil.rmtree(output, ignore_errors=True)
    began_s = time.monotonic()
    with subprocess.Popen([*command, "--output", f"{output}/"]) as process:
        while process.poll() is None:
            meanwhile(len(list(output.glob("part-*"))))
            time.sleep(_EVERY_S)
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}")
    return time.monotonic() - began_s


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def count_rows(folder: Path) -> int:
    """Return how many rows the parts of a folder have; 0 where one is there twice, or missing."""
    ends: dict[str, int] = {}
    for path in sorted(folder.glob("part-*")):  # in the order of the inputs
        table = pq.read_table(path, columns=["source", "index"])
        (source,) = table["source"].unique().to_pylist()
        start = ends.get(source, 0)
        ends[source] = start + table.num_rows
        if not np.array_equal(table["index"].to_numpy(), np.arange(start, ends[source])):
            return 0
    return sum(ends.values())


def run_cluster(options: argparse.Namespace, command: list[str], output: Path, parts: int) -> float:
    """Predict on a cluster, of which a node is killed where that is wanted; return the seconds."""
    cluster = Cluster()
    memory = {"object_store_memory": _OBJECT_STORE_BYTES}
    cluster.add_node(num_cpus=0, include_dashboard=False, **memory)
    nodes = [cluster.add_node(num_cpus=1, **memory) for _ in range(options.nodes)]
    killed: list[int] = []

    def kill_halfway(done: int) -> None:
        if options.kill_node and not killed and done >= parts / 2:
            killed.append(done)
            cluster.remove_node(nodes[-1], allow_graceful=False)

    try:
        engine = ["--engine", "ray", "--ray-address", cluster.address]
        duration_s = predict([*command, *engine], output, kill_halfway)
    finally:
        cluster.shutdown()
    if killed:
        print(f"a node of {options.nodes} was killed after {killed[0]} of {parts} parts\n")
    return duration_s


def main() -> int:
    """Run it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--kill-node", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    models = folder / "models"
    if not models.exists():
        training = [sys.executable, "-m", "mlpserve.trainer", "--data", "drawn", "--name", "digits"]
        small = ["--layers", "16,16", "--epochs", "3", "--models", str(models)]
        subprocess.run([*training, *small], check=True, stdout=subprocess.DEVNULL)
    images = [folder / f"{start}.npy" for start in range(0, options.rows, _SHARD_ROWS)]
    try:
        for number, path in enumerate(images):
            make_images(path, min(_SHARD_ROWS, options.rows - number * _SHARD_ROWS))
        return compare(options, models, images)
    finally:
        for path in images:
            path.unlink(missing_ok=True)


def compare(options: argparse.Namespace, models: Path, images: list[Path]) -> int:
    """Predict by one process and by a cluster, and print how they compare."""
    one, many = options.folder / "one", options.folder / "many"
    program = [sys.executable, "-m", "mlpserve.client", "--models", str(models)]
    command = [*program, *map(str, images)]
    one_s = predict(command, one, lambda _: None)
    expected = digests(one)
    many_s = run_cluster(options, command, many, sum(name.startswith("part-") for name in expected))
    limit = forward_pass_images_per_s(models)
    found = digests(many)
    print("| run | duration | images/s |\n|---|---|---|")
    print(f"| one process | {one_s:,.0f} s | {options.rows / one_s:,.0f} |")
    print(
        f"| a cluster of {options.nodes} nodes | {many_s:,.0f} s | {options.rows / many_s:,.0f} |"
    )
    print(f"| the forward pass alone, a processor | | {limit:,.0f} |")
    rows = count_rows(many)
    print(f"\n{rows:,} rows, each once, in {len(found)} files")
    is_right = found == expected and rows == options.rows
    print("every row exactly once, to the byte those of one process" if is_right else "WRONG")
    return os.EX_OK if is_right else os.EX_DATAERR


if __name__ == "__main__":
    sys.exit(main())
