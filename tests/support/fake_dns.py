"""A DNS server on the loopback interface, whose one name has the addresses that a test wants."""

import socket
import struct
from threading import Thread
from types import TracebackType
from typing import Final, Self

_A: Final = 1
_IN: Final = 1
_HEADER_BYTES: Final = 12
_TYPE_AND_CLASS_BYTES: Final = 4
_ANSWERED: Final = b"\x85\x80"  # with authority; no error
_THE_NAME: Final = b"\xc0\x0c"  # as it stands in the question
_MAX_QUERY_BYTES: Final = 2048


class FakeDns:
    """Answers each question for IPv4 addresses with the same; use it as a context manager.

    Args:
        addresses: The first addresses.

    Attributes:
        addresses: What is answered from now on.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = Thread(target=self._run, name="fake-dns")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.sendto(b"", self._socket.getsockname())  # the end
        self._thread.join()
        self._socket.close()

    def target(self, port: int) -> str:
        """Return what a client is to be given that asks this server for the name."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/digits.example:{port}"

    def _run(self) -> None:
        while True:
            query, caller = self._socket.recvfrom(_MAX_QUERY_BYTES)
            if not query:
                return
            self._socket.sendto(self._answer(query), caller)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", _HEADER_BYTES) + 1 + _TYPE_AND_CLASS_BYTES
        (kind,) = struct.unpack_from("!H", query, end - _TYPE_AND_CLASS_BYTES)
        addresses = self.addresses if kind == _A else ()
        counts = struct.pack("!4H", 1, len(addresses), 0, 0)
        records = [
            _THE_NAME + struct.pack("!HHIH", _A, _IN, 1, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        return query[:2] + _ANSWERED + counts + query[_HEADER_BYTES:end] + b"".join(records)
