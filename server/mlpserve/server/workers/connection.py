"""Connection between two processes: messages of JSON, and with them descriptors of open files.

A message is its length and the number of its descriptors, four bytes each in network byte order,
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
from typing import Any, Final, NamedTuple

_HEADER: Final = struct.Struct("!II")
_MAX_READ_BYTES: Final = 64 * 1024
_MAX_DESCRIPTORS_AT_ONCE: Final = 64  # Linux carries 253 with one piece, and other systems fewer
_CLOSED_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# A peer that reads nothing for so long is as good as gone. Seconds and microseconds.
_SEND_TIMEOUT: Final = struct.pack("@ll", 10, 0)


class Message(NamedTuple):
    """What came over a connection.

    Attributes:
        content: As it was sent.
        descriptors: Those of this process, of the files that were sent. The receiver closes them.
        is_whole: Whether they are all there; else there are none, because this process could not
            have so many files open.
    """

    content: Mapping[str, Any]
    descriptors: tuple[int, ...]
    is_whole: bool = True


class ConnectionClosedError(Exception):
    """The peer is gone, or cannot be understood."""


class Connection:
    """One end of a connection between two processes.

    Any number of threads may send and hang up. One thread receives, and closes at the end.

    Args:
        stream: A Unix stream socket; the connection closes it.
    """

    def __init__(self, stream: socket.socket) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        self._stream = stream
        self._sending = Lock()
        self._descriptors: list[int] = []
        self._is_truncated = False  # whether descriptors of the message that is read were lost

    def send(self, content: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message.

        Args:
            content: What JSON can carry.
            descriptors: Of open files. The peer gets descriptors of its own; these stay open.

        Raises:
            ConnectionClosedError: The peer is gone, or does not read.
        """
        groups = [
            descriptors[start : start + _MAX_DESCRIPTORS_AT_ONCE]
            for start in range(0, len(descriptors), _MAX_DESCRIPTORS_AT_ONCE)
        ]
        # Each group needs a byte to travel with. Spaces after JSON mean nothing.
        body = json.dumps(content).encode().ljust(len(groups))
        data = _HEADER.pack(len(body), len(descriptors)) + body
        with self._sending, self._failing_for_good():
            for number, group in enumerate(groups):
                socket.send_fds(self._stream, [data[number : number + 1]], group)
            self._stream.sendall(data[len(groups) :])

    def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            ConnectionClosedError: The peer is gone, and all that it said was received.
        """
        self._is_truncated = False
        with self._failing_for_good():
            length, count = _HEADER.unpack(self._read(_HEADER.size))
            content = json.loads(self._read(length))
        own, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        if len(own) == count:
            return Message(content, tuple(own))
        _close(own)
        if self._is_truncated:
            return Message(content, (), is_whole=False)
        raise ConnectionClosedError(f"expected {count} descriptors with a message, got {len(own)}")

    def hang_up(self) -> None:
        """Have both ends find that the other one is gone, at once where they wait."""
        with suppress(OSError):  # it is closed, here or there
            self._stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, and what came over it and nobody took."""
        self._stream.close()
        _close(self._descriptors)
        self._descriptors.clear()

    def _read(self, count: int) -> bytes:
        """Read so many bytes and none beyond, with which descriptors of the next message come."""
        data = bytearray()
        while len(data) < count:
            piece, descriptors, flags, _ = socket.recv_fds(
                self._stream,
                min(count - len(data), _MAX_READ_BYTES),
                _MAX_DESCRIPTORS_AT_ONCE,
                _CLOSED_ON_EXEC,
            )
            self._descriptors += descriptors
            if flags & socket.MSG_CTRUNC:  # this process has too many files open
                self._is_truncated = True
            if not piece:
                raise ConnectionClosedError("the peer is gone")
            data += piece
        return bytes(data)

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
    """Return a connection, and the other end of it, which is for another process."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Connection(own), other
