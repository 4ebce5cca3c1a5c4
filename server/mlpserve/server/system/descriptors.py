"""Descriptors of open files: how many a process may have, and files that have nothing else."""

import logging
import os
import resource
import tempfile
from typing import Final

logger = logging.getLogger(__name__)

# Of what the system allows: some allow a billion, and programs that go through all are slow then.
_MAX_DESCRIPTORS: Final = 65_536
# For all but connections: what gRPC holds, versions and what loads the next, certificates, the log.
_RESERVED: Final = 128


def raise_limit() -> None:
    """Allow this process and those that it starts as many open files as they may need.

    A version that is served takes some, and each connection takes one. The usual limit is 1024, for
    the sake of programs that use ``select``, and may be raised by any process for itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_MAX_DESCRIPTORS, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # some systems allow less than they say
        logger.info("no more than %d files may be open: %s", soft, error)


def connections_with_room(wanted: int) -> int:
    """Return how many connections may be open at once so that other files find room beside them.

    At the limit gRPC would take no connection, and close none; and no new version could be loaded.

    Args:
        wanted: So many at most.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(soft // 2, soft - _RESERVED))


def warn_of_few(wanted: int) -> None:
    """Log where this process, and those that it starts, can have fewer connections than wanted."""
    if (possible := connections_with_room(wanted)) < wanted:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        logger.warning(
            "max_connections: %d, not %d, because each process may have no more than %d files open",
            *(possible, wanted, soft),
        )


def anonymous_file(label: str) -> int:
    """Return the descriptor of an empty file without a name, which nobody else can open.

    Processes share it by passing on the descriptor.

    Args:
        label: What lists of open files call it, where the system can say.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
