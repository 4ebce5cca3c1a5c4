"""Ray engine: the shards of a job, done by actors of Ray Data on a cluster.

    driver        cuts the inputs, reads the weights, checks the nodes; writes the manifest
    coordinator   an actor on the head node that runs Ray Data, because ``ray://`` cannot
    workers       an actor for each CPU: load the weights once, then read, classify and write shards

Images never pass between machines: a worker reads them where they are, and what comes back is a
tally. Ray starts a worker that was lost once more, elsewhere, and gives its shard to it.
"""

import json
import pickle
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from mlpserve.client import ClientError
from mlpserve.client.predict.allocator import keep_freed_memory
from mlpserve.client.predict.batches import Position
from mlpserve.client.predict.flags import AUTO
from mlpserve.client.predict.folders import LocalFolder
from mlpserve.client.predict.jobs import Engine, Job, predict_shard
from mlpserve.client.predict.local import LocalModel, Weights
from mlpserve.client.predict.parts import RUN_NAME
from mlpserve.client.predict.ray_cluster import (
    check_nodes,
    cluster_errors,
    connected,
    fitting_workers,
    other_release,
    reason_of,
    release,
)
from mlpserve.client.predict.shards import Shard
from mlpserve.client.predict.stores import RemoteFile
from mlpserve.client.predict.tally import ResultsError, Tally
from mlpserve.model.errors import ModelError

_TAKE_S: Final = 0.5
_MAX_BLOCKS: Final = 2000
_IN_FLIGHT: Final = 2  # shards that wait at a worker, itself included


@dataclass(frozen=True)
class RayOptions:
    """How a cluster is used.

    Attributes:
        address: ``ray://HOST:PORT``, ``HOST:PORT``, ``auto`` for the cluster that this machine is
            part of, or ``local`` for one that is started here.
        workers: How many workers; None for as many as there are CPUs for.
        cpus: How many CPUs a worker takes.
    """

    address: str = AUTO
    workers: int | None = None
    cpus: float = 1


def ray_engine(weights: Weights, options: RayOptions, *, ood_scores: bool) -> Engine:
    """Return the engine that does shards on a cluster.

    What it yields raises ``ClientError`` where there is no cluster, it cannot do the job, or it is
    lost, and the sentence of a worker that cannot go on.
    """

    def engine(shards: Sequence[Shard], job: Job) -> Iterator[tuple[Shard, Tally]]:
        if not shards:
            return
        with connected(options.address) as ray, cluster_errors(ray):
            nodes = [node for node in ray.nodes() if node["Alive"]]
            check_nodes(ray, nodes, _needed_paths(shards, job))
            work = _Work(job, ray.put(weights), release(), ood_scores=ood_scores)
            coordinator = _on_head(ray, ray.remote(num_cpus=0)(_Coordinator), nodes).remote(
                [pickle.dumps(shard) for shard in shards],
                work,
                min(options.workers or fitting_workers(nodes, options.cpus), len(shards)),
                options.cpus,
            )
            yield from _taken(ray, coordinator, shards)

    return engine


@dataclass(frozen=True)
class _Work:
    """What each worker is given: the job, where the weights are, and whose code they are for."""

    job: Job
    weights: Any
    release: str
    ood_scores: bool


def _taken(ray: Any, coordinator: Any, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Tally]]:  # noqa: ANN401 - Ray has no types here
    """Yield what the coordinator hands over, each shard once."""
    missing = dict(enumerate(shards))
    while missing:
        for row in ray.get(coordinator.take.remote()):
            if row["problem"]:
                raise ResultsError(row["problem"])
            shard = missing.pop(row["number"], None)
            if shard is not None:  # else its worker was lost after it was done, and it is as it was
                yield shard, _tally(row["tally"])


class _Coordinator:
    """Runs Ray Data in a thread, and keeps what is done until the driver takes it."""

    def __init__(self, shards: list[bytes], work: _Work, workers: int, cpus: float) -> None:
        self._rows: queue.Queue[dict[str, Any]] = queue.Queue()
        run = threading.Thread(target=self._run, args=(shards, work, workers, cpus), daemon=True)
        run.start()

    def take(self) -> list[dict[str, Any]]:
        """Return what was done since the last time; nothing, after a moment, where that is none."""
        rows = []
        try:
            rows.append(self._rows.get(timeout=_TAKE_S))
            while True:
                rows.append(self._rows.get_nowait())
        except queue.Empty:
            return rows

    def _run(self, shards: list[bytes], work: _Work, workers: int, cpus: float) -> None:
        try:
            for row in _dataset(shards, work, workers, cpus).iter_rows():
                self._rows.put(row)
        except Exception as error:  # noqa: BLE001 - of whatever kind: the driver says it
            self._rows.put({"problem": f"the cluster cannot go on: {reason_of(error)}"})


def _dataset(shards: list[bytes], work: _Work, workers: int, cpus: float) -> Any:  # noqa: ANN401
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

    def __init__(self, work: _Work) -> None:
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

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
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


def _needed_paths(shards: Sequence[Shard], job: Job) -> list[str]:
    """Return the paths that each node has to see: the output's folder, and that of each input."""
    folders = {
        str(source.path.parent)
        for shard in shards
        for source in shard.sources
        if not isinstance(source, RemoteFile)
    }
    output = job.parts.folder
    return [
        *([str(output.path / RUN_NAME)] if isinstance(output, LocalFolder) else []),
        *sorted(folders),
    ]


def _on_head(ray: Any, actor: Any, nodes: Sequence[dict[str, Any]]) -> Any:  # noqa: ANN401
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    head = next(node for node in nodes if "node:__internal_head__" in node["Resources"])
    return actor.options(scheduling_strategy=affinity(head["NodeID"], soft=False))


def _tally(text: str) -> Tally:
    facts = json.loads(text)
    failures = [tuple(failure) for failure in facts["failures"]]
    return Tally(**facts | {"failures": failures, "position": Position(*facts["position"])})
