"""Ports of a server: each taken alone, though several processes of the server may share it."""

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Final

from mlpserve.server.errors import StartError

_LOCK_PREFIX: Final = "\0mlpserve-server "  # a name in Linux's abstract namespace, of no file

_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_UNIX: Final = "unix:"  # what a host begins with that is the path of a socket
_FLAGS: Final = "--host and --port"


def address(host: str, port: int) -> str:
    """Return ``host:port`` as gRPC takes it; an IPv6 address stands in brackets.

    Of a socket in the file system, ``unix:PATH``, it is the host alone.
    """
    if host.startswith(_UNIX):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_free(host: str, port: int) -> None:
    """Check that this server could listen, and say why where it could not.

    Raises:
        StartError: The address is taken, or not of this machine.
    """
    for bound in _bound_sockets(host, port, socket.SO_REUSEADDR):
        bound.close()


def cannot_listen(host: str, port: int, reason: object, *, flags: str = _FLAGS) -> StartError:
    """Return the error that says why an address cannot be listened on, and what to do then."""
    return StartError(
        f"cannot listen on {address(host, port)}: {reason}; choose others with {flags}"
    )


def listening_sockets(
    host: str, port: int, *, shares_port: bool = False, flags: str = _FLAGS
) -> list[socket.socket]:
    """Return sockets that listen on an address: one for each family that the host has.

    Args:
        host: The address to listen on.
        port: The port; 0 for any that is free.
        shares_port: Whether other processes of this server listen on it as well.
        flags: Those that the address was given with.

    Raises:
        StartError: The address is taken, or not of this machine.
    """
    option = socket.SO_REUSEPORT if shares_port else socket.SO_REUSEADDR
    return _bound_sockets(host, port, option, listen=True, flags=flags)


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
        # With SO_REUSEPORT alone, a second server could bind to the port and take half of the
        # calls. Without it, binding fails where any other socket listens ...
        check_free(host, port)
        # None of these listens: no connection comes to it.
        self._held = _bound_sockets(host, port, socket.SO_REUSEPORT)
        self.port: int = self._held[0].getsockname()[1]
        # ... and locks keep out a server that starts at this moment and does not listen yet.
        try:
            for held in self._held if sys.platform == "linux" else ():
                self._lock(held.getsockname()[0])
        except OSError as error:
            self.close()
            raise cannot_listen(host, port, error.strerror) from error

    def close(self) -> None:
        """Give the port back."""
        for held in self._held:
            held.close()

    def _lock(self, name: str) -> None:
        lock = socket.socket(socket.AF_UNIX)
        self._held = [*self._held, lock]
        lock.bind(f"{_LOCK_PREFIX}{name} {self.port}")


def _bound_sockets(
    host: str, port: int, option: int, *, listen: bool = False, flags: str = _FLAGS
) -> list[socket.socket]:
    """Return sockets with an option that are bound to an address, one for each of its families.

    Of those of a name that this machine does not have, there is none.

    Raises:
        StartError: The address is taken, or not of this machine.
    """
    if host.startswith(_UNIX):
        return [_bound_to_path(host, listen=listen, flags=flags)]
    found: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, (name, _, *rest) in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            # The address of the first family chooses the port where any would do.
            wanted = (name, found[0].getsockname()[1] if found else port, *rest)
            try:
                found.append(_bound_socket(family, wanted, option))
            except OSError as error:  # as of ::1 for localhost, where there is no IPv6
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = error
            else:
                if listen:
                    found[-1].listen(socket.SOMAXCONN)
        if not found and missing is not None:
            raise missing
    except (OSError, UnicodeError) as error:
        for opened in found:
            opened.close()
        reason = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise cannot_listen(host, port, reason, flags=flags) from error
    return found


def _bound_socket(family: int, address: tuple[object, ...], option: int) -> socket.socket:
    # asyncio sends answers without delay only over sockets that are said to be of TCP.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, option, 1)
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


def _bound_to_path(host: str, *, listen: bool, flags: str) -> socket.socket:
    """Return a socket in the file system, in place of one on which nobody listens any more.

    Raises:
        StartError: Somebody does, or there can be none.
    """
    path = host.removeprefix(_UNIX)
    opened = socket.socket(socket.AF_UNIX)
    try:
        try:
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(path)
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        except ConnectionRefusedError:
            Path(path).unlink()
        except FileNotFoundError:
            pass
        opened.bind(path)
        if listen:
            opened.listen(socket.SOMAXCONN)
    except OSError as error:
        opened.close()
        raise cannot_listen(host, 0, error.strerror or error, flags=flags) from error
    return opened
