"""Connection by ``ray://``, with an end to each of its waits.

The proxy on the head node starts a server for each driver, by a fork beside threads of gRPC. Some
of these servers never come up (ray-project/ray#63202), and Ray's client then waits for theirs, for
as long as the proxy is patient and once more for its log. Here it is begun anew, and then given up.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

START_LIMITS_S: Final = (60.0, 120.0)  # of each attempt
_ASK_EVERY_S: Final = 0.1
_END_S: Final = 10.0


class NotStartedError(Exception):
    """The cluster has started no server for this driver; the message says why, as far as known."""


def connect_client(
    ray: Any,  # noqa: ANN401 - Ray has no types here
    address: str,
    limits_s: Sequence[float] = START_LIMITS_S,
    **settings: object,
) -> None:
    """Connect to a cluster by ``ray://``.

    Args:
        ray: The package.
        address: ``ray://HOST:PORT``.
        limits_s: How long each attempt may take; there are as many as limits.
        settings: More arguments of ``ray.init``.

    Raises:
        NotStartedError: No attempt has led to a connection.
        Exception: Whatever else Ray raises, as where its releases differ.
    """
    reason = ""
    for limit_s in limits_s:
        failure = _attempt(ray, address, limit_s, settings)
        if failure is None:
            return
        if not isinstance(failure, ConnectionError):
            raise failure
        reason = str(failure)
    raise NotStartedError(reason)


def _attempt(
    ray: Any,  # noqa: ANN401
    address: str,
    limit_s: float,
    settings: dict[str, object],
) -> Exception | None:
    """Return why this attempt has failed, or None where it has not."""
    failures: list[Exception] = []

    def start() -> None:
        try:
            ray.init(address=address, **settings)
        except Exception as error:  # noqa: BLE001 - it is raised by who waits
            failures.append(error)

    thread = threading.Thread(target=start, name="ray-connect", daemon=True)
    thread.start()
    deadline_s = time.monotonic() + limit_s
    while thread.is_alive() and time.monotonic() < deadline_s and not _is_closing():
        thread.join(_ASK_EVERY_S)
    if not thread.is_alive():
        return failures[0] if failures else None
    is_late = not _is_closing()
    end_s = time.monotonic() + _END_S
    while thread.is_alive() and time.monotonic() < end_s:
        _cut()  # again and again: it may have had no channel yet
        thread.join(_ASK_EVERY_S)
    late = f"it did not start within {limit_s:g} s"
    if thread.is_alive():  # nor does the proxy answer; another attempt would have to wait for it
        raise NotStartedError(late)
    if not failures:
        ray.shutdown()
    elif not is_late:
        return failures[0]
    return ConnectionError(late)


def disconnect_client(ray: Any) -> None:  # noqa: ANN401
    """End a connection by ``ray://``, after a while without the cluster's consent."""
    timer = threading.Timer(_END_S, _cut)
    timer.daemon = True
    timer.start()
    try:
        ray.shutdown()
    finally:
        timer.cancel()


def _worker() -> Any:  # noqa: ANN401
    """Return Ray's connection to the cluster, or None."""
    from ray.util.client import ray as client  # noqa: PLC0415 - an extra

    return client.get_context().client_worker


def _is_closing() -> bool:
    """Return whether Ray has given up its connection, and waits for what it belongs to."""
    worker = _worker()
    return worker is not None and not worker.is_connected()


def _cut() -> None:
    """Close the channel, by which all that waits for an answer ends."""
    channel = getattr(_worker(), "channel", None)
    if channel is not None:
        channel.close()
