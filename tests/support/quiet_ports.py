"""Ports for what is started a while after they were found free."""

import random
import socket
from typing import Final

# Below those that the system gives to whoever asks for any, and beside Ray's own.
_PORTS: Final = range(24_001, 32_000)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, of both families of addresses."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        with socket.socket(socket.AF_INET6) as each:
            try:
                each.bind(("::", port))
            except OSError:
                continue
        found.append(port)
    raise AssertionError("no ports are free")
