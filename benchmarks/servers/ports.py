"""Ports for servers that must be told one, and do not say which they took."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> int:
    """Return the first of ``count`` ports in a row that nobody listens on at this moment."""
    while True:
        with ExitStack() as held:
            first: int = held.enter_context(_bound(0)).getsockname()[1]
            try:
                for port in range(first + 1, first + count):
                    held.enter_context(_bound(port))
            except (OSError, OverflowError):  # taken, or beyond the last port
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
