"""Ray cluster of a sweep: is connected to, or started."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mlpserve.model import ray_cluster
from mlpserve.model.ray_cluster import ClusterError, import_ray
from mlpserve.trainer.errors import TrainingError

_STORE_BYTES: Final = 100_000_000  # trials send figures only
_ADVICE: Final = "; a sweep runs on a node of the cluster, as with ray job submit"


@contextmanager
def connected(address: str, *, processors: int) -> Iterator[None]:
    """Be connected to a cluster within the block.

    Args:
        address: ``HOST:PORT``, or ``AUTO`` or ``LOCAL``.
        processors: How many a cluster has that is started here.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        TrainingError: There is no such cluster.
    """
    try:
        ray = import_ray("ray.tune")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"--ray-address needs {error.name}: pip install 'mlpserve[trainer,ray]'"
        ) from error
    here = {
        "num_cpus": processors,
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
    }
    try:
        with ray_cluster.connected(ray, address, takes_client=False, advice=_ADVICE, started=here):
            yield
    except ClusterError as error:
        raise TrainingError(str(error)) from error
