"""Ports of a server: each taken alone, though several processes of the server may share it."""

import socket
import sys
from contextlib import ExitStack
from typing import Any, Final

from mlpserve.server.errors import StartError

_LOCK_PREFIX: Final = "\0mlpserve-server "  # a name in Linux's abstract namespace, of no file


def address(host: str, port: int) -> str:
    """Return ``host:port`` as gRPC takes it; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_free(host: str, port: int) -> None:
    """Check that this server could listen, and say why where it could not.

    Raises:
        StartError: The address is taken, or not of this machine.
    """
    try:
        for family, target in _targets(host, port):
            _bound(family, target, socket.SO_REUSEADDR).close()
    except OSError as error:
        raise cannot_listen(host, port, error.strerror) from error


def cannot_listen(host: str, port: int, reason: object) -> StartError:
    """Return the error that says why an address cannot be listened on."""
    return StartError(
        f"cannot listen on {address(host, port)}: {reason}; choose others with --host and --port"
    )


def listening_sockets(host: str, port: int, *, shares_port: bool) -> list[socket.socket]:
    """Return sockets that listen on an address: one for each family that the host has.

    Args:
        host: The address to listen on.
        port: The port; 0 for any that is free.
        shares_port: Whether other processes of this server listen on it as well.

    Raises:
        StartError: The address is taken, or not of this machine.
    """
    option = socket.SO_REUSEPORT if shares_port else socket.SO_REUSEADDR
    found: list[socket.socket] = []
    try:
        for family, (name, asked, *rest) in _targets(host, port):
            # The address of the first family has chosen the port where any would do.
            chosen = found[0].getsockname()[1] if found else asked
            found.append(_bound(family, (name, chosen, *rest), option))
            found[-1].listen(socket.SOMAXCONN)
    except OSError as error:
        for opened in found:
            opened.close()
        raise cannot_listen(host, port, error.strerror) from error
    return found


class SharedPort:
    """A port for the processes of one server, which share it by SO_REUSEPORT, and of no other.

    It is held until ``close``, so that a process which dies can be replaced.

    Args:
        host: The address to listen on.
        port: The port; 0 for any that is free.

    Raises:
        StartError: The address is taken, also by another server that shares it among its processes,
            or not of this machine.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        self._held = ExitStack()
        try:
            for family, target in _targets(host, port):
                self._hold(family, target)
        except OSError as error:
            self.close()
            raise cannot_listen(host, port, error.strerror) from error

    def close(self) -> None:
        """Give the port back."""
        self._held.close()

    def _hold(self, family: int, target: tuple[Any, ...]) -> None:
        """Bind a socket that never listens: no connection comes to it."""
        # The address of the first family has chosen the port where any would do.
        host, _, *rest = target
        target = (host, self.port, *rest)
        # With SO_REUSEPORT alone, a second server could bind to the port and take half of the
        # calls. Without it, binding fails where any other socket listens ...
        _bound(family, target, socket.SO_REUSEADDR).close()
        held = self._held.enter_context(_bound(family, target, socket.SO_REUSEPORT))
        self.port = held.getsockname()[1]
        # ... and the lock keeps out a server that starts at this moment and does not listen yet.
        if sys.platform == "linux":
            lock = self._held.enter_context(socket.socket(socket.AF_UNIX))
            lock.bind(f"{_LOCK_PREFIX}{host} {self.port}")


def _targets(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, target) for family, _, _, _, target in found]


def _bound(family: int, target: tuple[Any, ...], *options: int) -> socket.socket:
    # asyncio sends answers without delay only over sockets that are said to be of TCP.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(target)
    except OSError:
        bound.close()
        raise
    return bound
