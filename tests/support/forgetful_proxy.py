"""A TCP proxy that forgets connections as a NAT or a balancer does: silently."""

import selectors
import socket
from contextlib import suppress
from threading import Lock, Thread
from types import TracebackType
from typing import Final, Self

_CHUNK_BYTES: Final = 1 << 16


class ForgetfulProxy:
    """Passes bytes on to a port of this machine, until it forgets a connection.

    What is sent on a forgotten connection is taken and dropped; neither side is told. Connections
    that come later are passed on again, unless all is cut off.

    Args:
        port: Where bytes go.
        listens_at: The address to listen at; that of a free port by default.
    """

    def __init__(self, port: int, listens_at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(listens_at)
        self._is_cut_off = False
        self._lock = Lock()
        self._peer_of: dict[socket.socket, socket.socket] = {}
        self._forgotten: set[socket.socket] = set()
        self._is_closed = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, wakened = socket.socketpair()
        self._selector.register(wakened, selectors.EVENT_READ)
        self._wakened = wakened
        self.accepted = 0
        self._thread = Thread(target=self._run, name="forgetful-proxy")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closed = True
        self._waker.send(b"x")
        self._thread.join()
        for each in [*self._peer_of, self._listener, self._waker, self._wakened]:
            each.close()
        self._selector.close()

    @property
    def address(self) -> str:
        """Return where it listens."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def forget(self) -> int:
        """Forget all connections that there are, and return how many."""
        with self._lock:
            count = len(self._peer_of) - len(self._forgotten)
            self._forgotten.update(self._peer_of)
        return count // 2

    def cut_off(self) -> None:
        """Forget all connections, and each that comes from now on."""
        self._is_cut_off = True
        self.forget()

    def _run(self) -> None:
        while not self._is_closed:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj is not self._wakened:
                    self._pass_on(key.fileobj)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        self.accepted += 1
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        with self._lock:
            self._peer_of |= {near: far, far: near}
            if self._is_cut_off:
                self._forgotten |= {near, far}
        for each in near, far:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(each, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        data = b""
        with suppress(OSError):
            data = source.recv(_CHUNK_BYTES)
        with self._lock:
            peer, is_forgotten = self._peer_of[source], source in self._forgotten
        if not data:  # an end is not passed on by what has forgotten the connection
            self._selector.unregister(source)
            if not is_forgotten:
                with suppress(OSError):
                    peer.shutdown(socket.SHUT_WR)
        elif not is_forgotten:
            with suppress(OSError):
                peer.sendall(data)
