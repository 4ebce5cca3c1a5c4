"""Ray cluster: is connected to, or started here, and asked whether it still has room.

Ray is an extra; nothing here imports it before it is wanted.
"""

import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from mlpserve.model.ray_client import NotStartedError, connect_client, disconnect_client

AUTO: Final = "auto"  # the cluster that this machine is a node of
LOCAL: Final = "local"  # one that is started here, for as long as the command takes
_CLIENT: Final = "ray://"
_CONNECT_S: Final = 5.0
_MAX_REASON: Final = 300
_MAX_CHECKS: Final = 60


class ClusterError(Exception):
    """There is no such cluster, or it cannot do the work; the message says what to do."""


def import_ray(*modules: str) -> Any:  # noqa: ANN401 - Ray has no types here
    """Return Ray, with some of its modules imported, which reports nothing to its makers.

    Raises:
        ModuleNotFoundError: Something of it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported
    ray = importlib.import_module("ray")
    for module in modules:
        importlib.import_module(module)
    return ray


@contextmanager
def connected(
    ray: Any,  # noqa: ANN401
    address: str,
    *,
    takes_client: bool,
    advice: str = "",
    started: Mapping[str, object],
) -> Iterator[None]:
    """Be connected to a cluster within the block.

    Args:
        ray: The package.
        address: ``HOST:PORT``, ``AUTO`` or ``LOCAL``.
        takes_client: Whether it may be ``ray://HOST:PORT`` too.
        advice: What to do instead of what ``address`` may not be.
        started: More arguments of ``ray.init`` for a cluster that is started here.

    Raises:
        ClusterError: There is no such cluster.
    """
    _check_reachable(address, takes_client=takes_client, advice=advice)
    is_client = address.startswith(_CLIENT)
    settings: dict[str, Any] = dict(started) if address == LOCAL else {}
    settings |= {"logging_level": logging.ERROR, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Or what it has to say of lost nodes is on standard output, among that of the command.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001
    try:
        if is_client:
            connect_client(ray, address, **settings)
        else:
            ray.init(address=address, **settings)
    except NotStartedError as error:
        raise ClusterError(
            f"--ray-address {address}: the cluster has started no server for this driver: "
            f"{reason_of(error)}; ray_client_server*.err in the logs of its head node may say why, "
            "and GRPC_ENABLE_FORK_SUPPORT=0 there, for 'ray start --head', prevents what is known"
        ) from error
    except Exception as error:  # Ray has no class for it
        raise _no_cluster(address, reason_of(error)) from error
    try:
        yield
    finally:
        if is_client:
            disconnect_client(ray)
        else:
            ray.shutdown()


def _check_reachable(address: str, *, takes_client: bool, advice: str) -> None:
    """Refuse an address that nobody listens at, before Ray tries it for minutes."""
    if address in {AUTO, LOCAL}:
        return
    is_client = takes_client and address.startswith(_CLIENT)
    try:
        place = urlsplit(address if is_client else f"//{address}")
        host, port, path = place.hostname, place.port, place.path
    except ValueError:
        host, port, path = None, None, ""
    if not host or not port or path:
        forms = f"{_CLIENT}HOST:PORT, HOST:PORT" if takes_client else "HOST:PORT"
        raise ClusterError(
            f"--ray-address: expected {forms}, {AUTO} or {LOCAL}, got {address!r}{advice}"
        )
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"--ray-address {address}: no cluster can be reached there: {reason}; start one with "
        f"'ray start --head', name another, or have one started here with --ray-address {LOCAL}"
    )


def alive_nodes(ray: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return the nodes of the cluster that are alive, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def reason_of(error: BaseException) -> str:
    """Return the last line of an error, which in Ray's says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:_MAX_REASON]


class Room:
    """Whether a cluster has a node with the CPUs that a worker takes.

    Ray waits without end for such a node. An autoscaler may bring one, within some minutes.
    """

    def __init__(self, ray: Any, cpus: float, warn: Callable[[str], object]) -> None:  # noqa: ANN401
        """Prepare to ask.

        Args:
            ray: The package, connected.
            cpus: What a worker takes.
            warn: Called with a sentence where there is no such node any more.
        """
        self._ray = ray
        self._cpus = cpus
        self._warn = warn
        self._failed = 0

    def check(self) -> None:
        """Ask; to be called every ten seconds where nothing is done.

        Raises:
            ClusterError: There has been none for ten minutes.
        """
        if any(node["Resources"].get("CPU", 0) >= self._cpus for node in alive_nodes(self._ray)):
            self._failed = 0
            return
        self._failed += 1
        missing = f"no node of the cluster has {self._cpus:g} CPUs"
        if self._failed == 1:
            self._warn(f"{missing}, as workers need; waiting ten minutes for one")
        if self._failed >= _MAX_CHECKS:
            raise ClusterError(f"{missing}, after waiting ten minutes for one")
