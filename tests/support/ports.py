"""Ports for programs that have to be told which to listen on."""

import itertools
import os
import socket
from typing import Final

# Below those that Linux gives to connections, and to who asks for any. One of these may be taken by
# anybody in the second that a program needs until it listens, and there are tests with thousands.
_FIRST: Final = 12_000
_COUNT: Final = 18_000
_numbers: Final = itertools.count(61 * os.getpid())  # each process of pytest begins elsewhere


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens, another one each time."""
    for number in _numbers:
        port = _FIRST + number % _COUNT
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError  # there is always another number
