"""Ports for servers that must be told one, and do not say which they took."""

import os
import socket
from contextlib import ExitStack
from typing import Final

_FIRST: Final = 20_000
_PORTS: Final = 12_000


def free_ports(count: int) -> int:
    """Return the first of ``count`` ports in a row that nobody listens on at this moment."""
    # Each process begins somewhere else; none is one that the system gives to connections.
    first = _FIRST + os.getpid() * count % _PORTS
    while True:
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(_bound(port))
            except OSError:  # taken
                first = _FIRST + (first - _FIRST + count) % _PORTS
                continue
            return first


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.bind(("127.0.0.1", port))
    except BaseException:
        bound.close()
        raise
    return bound
