"""Ray cluster of a job: is connected to, and asked whether its nodes can do it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from mlpserve.client import ClientError
from mlpserve.client.predict.ray_coordinator import other_release, release
from mlpserve.model import ray_cluster
from mlpserve.model.ray_cluster import ClusterError, import_ray, reason_of

_STARTED: Final[Mapping[str, object]] = {"include_dashboard": False}
_PROBE_S: Final = 120.0  # a busy node takes long to start Python


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Lend Ray, connected to a cluster.

    Raises:
        ClientError: Ray is not installed, or there is no cluster.
    """
    try:
        ray = import_ray()
    except ModuleNotFoundError as error:
        raise ClientError(
            f"--engine ray needs {error.name}: pip install 'mlpserve[predict,tables,ray]'"
        ) from error
    if ray.is_initialized():  # by whom this is part of
        yield ray
        return
    try:
        with ray_cluster.connected(ray, address, takes_client=True, started=_STARTED):
            yield ray
    except ClusterError as error:
        raise ClientError(str(error)) from error


@contextmanager
def cluster_errors(ray: Any) -> Iterator[None]:  # noqa: ANN401
    """Translate what Ray raises where the cluster is lost."""
    try:
        yield
    except ClusterError as error:
        raise ClientError(f"the cluster was lost: {error}; --resume goes on") from error
    except ray.exceptions.GetTimeoutError as error:
        raise ClientError(
            "the cluster was lost: its head node does not answer; --resume goes on"
        ) from error
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ClientError(f"the cluster was lost: {reason_of(error)}; --resume goes on") from error


def check_nodes(ray: Any, nodes: Sequence[dict[str, Any]], paths: list[str]) -> None:  # noqa: ANN401
    """Have each node say whether it can do the job.

    Raises:
        ClientError: One cannot; the sentence says what is missing there.
    """

    # Within a function, so that it is sent as it is, to nodes that may not have the package.
    def probe() -> tuple[str, str]:
        import importlib  # noqa: PLC0415
        import os  # noqa: PLC0415
        from importlib import metadata  # noqa: PLC0415

        try:
            found = metadata.version("mlpserve")
            importlib.import_module("mlpserve.client.predict.ray_coordinator")
            importlib.import_module("pyarrow.parquet")
        except metadata.PackageNotFoundError:
            return "", "mlpserve"
        except ModuleNotFoundError as error:
            return "", error.name or str(error)
        return found, next((f"path {path}" for path in paths if not os.path.exists(path)), "")  # noqa: PTH110

    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    remote = ray.remote(num_cpus=0, max_retries=0)(probe)
    answers = {
        remote.options(scheduling_strategy=affinity(node["NodeID"], soft=False)).remote(): node
        for node in nodes
    }
    answered, late = ray.wait(list(answers), num_returns=len(answers), timeout=_PROBE_S)
    for answer in late:
        raise ClientError(f"node {_address(answers[answer])} of the cluster does not answer")
    for answer in answered:
        found, missing = ray.get(answer)
        if problem := _problem(found, missing):
            raise ClientError(f"node {_address(answers[answer])} of the cluster: {problem}")


def _problem(found: str, missing: str) -> str:
    """Return what is wrong with a node that has told its release, and what it misses."""
    if missing.startswith("path "):
        return (
            f"{missing.removeprefix('path ')} is not there; inputs and output have to be in "
            "folders that all nodes share, or in an object store"
        )
    if missing:
        return (
            f"{missing} is not installed there; install what runs here: pip install "
            f"'mlpserve[predict,tables,ray]=={release()}'"
        )
    return "" if found == release() else other_release(found, release())


def _address(node: dict[str, Any]) -> str:
    return str(node["NodeManagerAddress"])


def fitting_workers(nodes: Sequence[dict[str, Any]], cpus: float) -> int:
    """Return how many workers find room.

    Raises:
        ClientError: No node has the CPUs that one takes.
    """
    fitting = sum(int(node["Resources"].get("CPU", 0) // cpus) for node in nodes)
    if not fitting:
        most = max(node["Resources"].get("CPU", 0) for node in nodes)
        raise ClientError(
            f"--ray-cpus {cpus:g}: no node of the cluster has so many, the most are {most:g}"
        )
    return fitting
