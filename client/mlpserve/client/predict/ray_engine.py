"""Ray engine: the shards of a job, done by actors of Ray Data on a cluster.

    driver        cuts the inputs, reads the weights, checks the nodes; writes the manifest
    coordinator   an actor on the head node that runs Ray Data, because ``ray://`` cannot
    workers       an actor for each CPU: load the weights once, then read, classify and write shards

The coordinator and the workers are in ``ray_coordinator``. The driver asks the coordinator again
and again, so it knows when nothing more can come: where that one is lost or has come to its end, or
there has been no node for long that a worker fits on.
"""

import json
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mlpserve.client import ClientError
from mlpserve.client.predict.batches import Position
from mlpserve.client.predict.folders import LocalFolder
from mlpserve.client.predict.jobs import Engine, Job
from mlpserve.client.predict.local import Weights
from mlpserve.client.predict.parts import RUN_NAME
from mlpserve.client.predict.ray_cluster import (
    check_nodes,
    cluster_errors,
    connected,
    fitting_workers,
)
from mlpserve.client.predict.ray_coordinator import Coordinator, Row, Work, release
from mlpserve.client.predict.shards import Shard
from mlpserve.client.predict.stores import RemoteFile
from mlpserve.client.predict.tally import ResultsError, Tally
from mlpserve.model.ray_cluster import AUTO, Room, alive_nodes

logger = logging.getLogger(__name__)

_ANSWER_S: Final = 300.0  # the coordinator answers at once; before that, its process has to start
_CHECK_EVERY: Final = 20  # answers with nothing done, ten seconds of them
_WARN_AFTER: Final = 120
_NAMED: Final = 3

Take = Callable[[], tuple[list[Row], bool]]


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
            nodes = alive_nodes(ray)
            check_nodes(ray, nodes, _needed_paths(shards, job))
            work = Work(job, ray.put(weights), release(), ood_scores=ood_scores)
            coordinator = _on_head(ray, ray.remote(num_cpus=0)(Coordinator), nodes).remote(
                [pickle.dumps(shard) for shard in shards],
                work,
                min(options.workers or fitting_workers(nodes, options.cpus), len(shards)),
                options.cpus,
            )
            yield from taken(
                lambda: ray.get(coordinator.take.remote(), timeout=_ANSWER_S),
                shards,
                Room(ray, options.cpus, logger.warning).check,
            )

    return engine


def taken(
    take: Take, shards: Sequence[Shard], check: Callable[[], None]
) -> Iterator[tuple[Shard, Tally]]:
    """Yield what the coordinator hands over, each shard once.

    Args:
        take: ``Coordinator.take``.
        shards: All that it was given.
        check: Called now and then where nothing is done; raises where nothing can be.

    Raises:
        ClientError: The coordinator has come to its end without some of them.
        ResultsError: A worker cannot go on.
    """
    missing = dict(enumerate(shards))
    quiet = 0
    while missing:
        rows, is_over = take()
        for row in rows:
            if row["problem"]:
                raise ResultsError(row["problem"])
            shard = missing.pop(row["number"], None)
            if shard is not None:  # else its worker was lost after it was done, and it is as it was
                yield shard, _tally(row["tally"])
        if is_over and missing:
            raise ClientError(_lost(list(missing.values()), len(shards)))
        quiet = 0 if rows else quiet + 1
        if quiet % _CHECK_EVERY == _CHECK_EVERY - 1:
            check()
        if quiet == _WARN_AFTER:
            logger.warning(
                "the cluster has done nothing for a minute: its CPUs are taken, or files are large"
            )


def _lost(missing: Sequence[Shard], count: int) -> str:
    names = ", ".join(shard.name for shard in missing[:_NAMED])
    more = ", ..." if len(missing) > _NAMED else ""
    return (
        f"the cluster has come to its end without {len(missing)} of {count} parts: {names}{more}; "
        "--resume does them"
    )


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
