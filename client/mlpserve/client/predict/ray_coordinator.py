"""Coordinator of a job on a Ray cluster, and its workers: what runs there, not at the driver.

Images never pass between machines: a worker reads them where they are, and what comes back is a
tally. Ray starts a worker that was lost once more, elsewhere, and gives its shard to it.
"""

import json
import pickle
import queue
import threading
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Final, TypeAlias

from mlpserve.client import ClientError
from mlpserve.client.predict.allocator import keep_freed_memory
from mlpserve.client.predict.jobs import Job, predict_shard
from mlpserve.client.predict.local import LocalModel
from mlpserve.client.predict.shards import Shard
from mlpserve.client.predict.tally import ResultsError, Tally
from mlpserve.model.errors import ModelError
from mlpserve.model.ray_cluster import reason_of

Row: TypeAlias = dict[str, Any]

_PACKAGE: Final = "mlpserve"
_TAKE_S: Final = 0.5
_MAX_BLOCKS: Final = 2000
_IN_FLIGHT: Final = 2  # shards that wait at a worker, itself included


@dataclass(frozen=True)
class Work:
    """What each worker is given: the job, where the weights are, and whose code they are for."""

    job: Job
    weights: Any
    release: str
    ood_scores: bool


class Coordinator:
    """Runs Ray Data in a thread, and keeps what is done until the driver takes it."""

    def __init__(self, shards: list[bytes], work: Work, workers: int, cpus: float) -> None:
        self._rows: queue.Queue[Row] = queue.Queue()
        self._is_over = threading.Event()
        run = threading.Thread(target=self._run, args=(shards, work, workers, cpus), daemon=True)
        run.start()

    def take(self) -> tuple[list[Row], bool]:
        """Return what was done since the last time, and whether that was the last.

        Where nothing was done, it returns after a moment.
        """
        is_over = self._is_over.is_set()  # asked first: what is done before it is in the queue
        rows = []
        try:
            rows.append(self._rows.get(timeout=0 if is_over else _TAKE_S))
            while True:
                rows.append(self._rows.get_nowait())
        except queue.Empty:
            return rows, is_over

    def _run(self, shards: list[bytes], work: Work, workers: int, cpus: float) -> None:
        try:
            for row in dataset(shards, work, workers, cpus).iter_rows():
                self._rows.put(row)
        except Exception as error:  # noqa: BLE001 - of whatever kind: the driver says it
            self._rows.put({"problem": f"the cluster cannot go on: {reason_of(error)}"})
        finally:
            self._is_over.set()


def dataset(shards: list[bytes], work: Work, workers: int, cpus: float) -> Any:  # noqa: ANN401 - Ray has no types here
    """Return the rows of Ray Data that become the tallies of the shards."""
    import ray.data  # noqa: PLC0415 - an extra

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the driver shows one
    items = [{"number": number, "shard": shard} for number, shard in enumerate(shards)]
    return ray.data.from_items(items, override_num_blocks=min(len(items), _MAX_BLOCKS)).map(
        _Worker,
        fn_constructor_args=(work,),
        compute=ray.data.ActorPoolStrategy(
            min_size=workers, max_size=workers, max_tasks_in_flight_per_actor=_IN_FLIGHT
        ),
        num_cpus=cpus,
    )


class _Worker:
    """Does shards; what it cannot do is a problem in its answer, which ends the job."""

    def __init__(self, work: Work) -> None:
        import ray  # noqa: PLC0415 - an extra

        self._node = ray.util.get_node_ip_address()
        self._job = work.job
        self._problem = ""
        here = release()
        if here != work.release:
            self._problem = self._told(other_release(here, work.release))
            return
        keep_freed_memory()
        try:
            self._model = LocalModel(ray.get(work.weights), ood_scores=work.ood_scores)
        except (ClientError, ModelError) as error:
            self._problem = self._told(str(error))

    def __call__(self, row: Row) -> Row:
        tally = Tally()
        problem = self._problem
        if not problem:
            try:
                shard: Shard = pickle.loads(row["shard"])  # noqa: S301 - the driver's own
                tally = predict_shard(shard, self._model, self._job)
            except (ClientError, ModelError, ResultsError, OSError) as error:
                problem = self._told(str(error))
        return {"number": row["number"], "tally": json.dumps(asdict(tally)), "problem": problem}

    def _told(self, problem: str) -> str:
        return f"worker on {self._node}: {problem}"


def other_release(found: str, release: str) -> str:
    """Return what is wrong where another release of ours is installed."""
    return (
        f"expected mlpserve {release}, which runs here, got {found}; install the same on all nodes"
    )


def release() -> str:
    """Return which release of ours is installed here."""
    return metadata.version(_PACKAGE)
