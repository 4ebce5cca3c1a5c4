"""Ray cluster of a sweep: is connected to, or started."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from mlpserve.trainer.errors import TrainingError

AUTO: Final = "auto"  # the cluster that this machine is a node of
LOCAL: Final = "local"  # one that is started here, for as long as the sweep takes
_CONNECT_S: Final = 5.0
_STORE_BYTES: Final = 100_000_000  # trials send figures only


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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.tune  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"--ray-address needs {error.name}: pip install 'mlpserve[trainer,ray]'"
        ) from error
    _check(address)
    here: dict[str, Any] = {}
    if address == LOCAL:
        here = {"num_cpus": processors, "object_store_memory": _STORE_BYTES}
        here["include_dashboard"] = False
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **here)
    except Exception as error:  # Ray has no class for it
        raise _no_cluster(address, str(error).partition("\n")[0]) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Refuse an address that nobody listens at, before Ray tries it for minutes."""
    if address in {AUTO, LOCAL}:
        return
    try:
        place = urlsplit(f"//{address}")
        host, port, path = place.hostname, place.port, place.path
    except ValueError:
        host, port, path = None, None, ""
    if not host or not port or path:
        raise TrainingError(
            f"--ray-address: expected HOST:PORT, {AUTO} or {LOCAL}, got {address!r}; a sweep runs "
            "on a node of the cluster, as with ray job submit"
        )
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, reason: str) -> TrainingError:
    return TrainingError(
        f"--ray-address {address}: no cluster can be reached there: {reason}; start one with "
        f"'ray start --head', name another, or have one started here with --ray-address {LOCAL}"
    )
