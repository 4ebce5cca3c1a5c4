"""Messages between two processes: JSON, and with it descriptors of open files.

A message is its length and the number of its descriptors, four bytes each in the order of networks,
and then its JSON. A stream of bytes knows no messages and may be cut anywhere. Descriptors travel
beside it, in their order, and never come later than the byte that they were sent with. So when all
bytes of a message are there, its descriptors are.
"""

import json
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, Final, NamedTuple, TypeAlias

Content: TypeAlias = Mapping[str, Any]

_HEADER: Final = struct.Struct("!II")
_READ_BYTES: Final = 64 * 1024
_DESCRIPTORS_AT_ONCE: Final = 64  # Linux carries 253 with one piece, and other systems fewer
_CLOSED_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# A peer that reads nothing for so long is as good as gone. Seconds and microseconds.
_SEND_TIME_LIMIT: Final = struct.pack("@ll", 10, 0)


class Message(NamedTuple):
    """What came over a channel.

    Attributes:
        content: As it was sent.
        descriptors: Those of this process, of the files that were sent. The receiver closes them.
        is_whole: Whether they are all there; else there are none, because this process could not
            have so many files open.
    """

    content: Content
    descriptors: tuple[int, ...]
    is_whole: bool = True


class ConnectionClosedError(Exception):
    """The peer is gone, or cannot be understood."""


class Connection:
    """One end of a connection between two processes.

    Any number of threads may send and hang up. One thread receives, and closes at the end.

    Args:
        connection: A Unix stream socket; the channel closes it.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIME_LIMIT)
        self._connection = connection
        self._sending = Lock()
        self._received = bytearray()
        self._descriptors: list[int] = []
        self._taken_bytes = 0  # of all that came, ever
        self._lost_with: list[int] = []  # the numbers of the bytes whose descriptors found no room

    def send(self, content: Content, descriptors: Sequence[int] = ()) -> None:
        """Send a message.

        Args:
            content: What JSON can carry.
            descriptors: Of open files. The peer gets descriptors of its own; these stay open.

        Raises:
            ConnectionClosedError: The peer is gone, or does not read.
        """
        groups = [
            descriptors[start : start + _DESCRIPTORS_AT_ONCE]
            for start in range(0, len(descriptors), _DESCRIPTORS_AT_ONCE)
        ]
        # Each group needs a byte to travel with. Spaces after JSON mean nothing.
        body = json.dumps(content).encode().ljust(len(groups))
        data = _HEADER.pack(len(body), len(descriptors)) + body
        with self._sending, self._failing_for_good():
            for number, group in enumerate(groups):
                socket.send_fds(self._connection, [data[number : number + 1]], group)
            self._connection.sendall(data[len(groups) :])

    def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            ConnectionClosedError: The peer is gone, and all that it said was received.
        """
        start = self._taken_bytes
        with self._failing_for_good():
            length, count = _HEADER.unpack(self._take(_HEADER.size))
            content = json.loads(self._take(length))
        lost = self._lost_since(start, count)
        own, self._descriptors = (
            self._descriptors[: count - lost],
            self._descriptors[count - lost :],
        )
        if lost:
            _close(own)
            return Message(content, (), is_whole=False)
        if count > len(own):
            raise ConnectionClosedError(
                f"expected {count} descriptors with a message, got {len(own)}"
            )
        return Message(content, tuple(own))

    def hang_up(self) -> None:
        """Have both ends find that the other one is gone, at once where they wait."""
        with suppress(OSError):  # it is closed, here or there
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, and what came over it and nobody took."""
        self._connection.close()
        _close(self._descriptors)
        self._descriptors.clear()

    def _lost_since(self, start: int, count: int) -> int:
        """Return how many of the descriptors of a message that was just taken were lost.

        Args:
            start: The number of its first byte.
            count: How many were sent with it.
        """
        groups = [byte - start for byte in self._lost_with if byte < self._taken_bytes]
        self._lost_with = self._lost_with[len(groups) :]
        return sum(
            min(_DESCRIPTORS_AT_ONCE, count - group * _DESCRIPTORS_AT_ONCE) for group in groups
        )

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            data, descriptors, flags, _ = socket.recv_fds(
                self._connection, _READ_BYTES, _DESCRIPTORS_AT_ONCE, _CLOSED_ON_EXEC
            )
            if flags & socket.MSG_CTRUNC:  # this process has too many open
                # What is read at once ends with the byte that descriptors came with.
                self._lost_with.append(self._taken_bytes + len(self._received) + len(data) - 1)
                _close(descriptors)
            else:
                self._descriptors += descriptors
            if not data:
                raise ConnectionClosedError("the peer is gone")
            self._received += data
        taken = bytes(self._received[:count])
        del self._received[:count]
        self._taken_bytes += count
        return taken

    @contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        """Hang up where the block fails: what follows half a message would not be understood."""
        try:
            yield
        except (OSError, ValueError) as error:
            self.hang_up()
            raise ConnectionClosedError(str(error)) from error


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def connection_pair() -> tuple[Connection, socket.socket]:
    """Return a channel, and the other end of it, which is for another process."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Connection(own), other
