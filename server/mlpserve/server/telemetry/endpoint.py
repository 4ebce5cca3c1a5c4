"""Where Prometheus fetches the metrics: GET /metrics over HTTP, in a thread of its own.

Callers that are slow, silent or many cost a connection for a few seconds, and nobody else's turn.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from threading import Thread
from typing import Any, Final

from mlpserve.server.errors import StartError
from mlpserve.server.settings.config import NO_PORT, ServerConfig
from mlpserve.server.system.ports import address
from mlpserve.server.telemetry.exposition import CONTENT_TYPE, exposition
from mlpserve.server.telemetry.snapshots import Aggregate

_PATH: Final = "/metrics"
_MOST_CONNECTIONS: Final = 32
_LARGEST_HEAD_BYTES: Final = 8192
_TIME_LIMIT_S: Final = 5.0  # of a connection, from its begin to its end
_HEAD_END: Final = b"\r\n\r\n"

logger = logging.getLogger(__name__)


def open_endpoint(config: ServerConfig, aggregate: Aggregate[Any]) -> "MetricsEndpoint | None":
    """Tell the metrics of a server, and log where; None where its settings want them not told.

    Raises:
        StartError: As for ``MetricsEndpoint``.
    """
    if config.metrics_port == NO_PORT:
        return None
    endpoint = MetricsEndpoint(
        config.metrics_host, config.metrics_port, lambda: exposition(aggregate.snapshot())
    )
    logger.info("metrics: http://%s%s", endpoint.address, _PATH)
    return endpoint


class MetricsEndpoint:
    """Answers Prometheus from the moment that it is made.

    Args:
        host: The address to listen on.
        port: The port; 0 for any that is free.
        page: Returns the metrics as text; called from a thread of its own, one at a time.

    Attributes:
        address: ``host:port`` with the port that is really used.

    Raises:
        StartError: The address is taken, or not of this machine.
    """

    def __init__(self, host: str, port: int, page: Callable[[], str]) -> None:
        listener = _listener(host, port)
        self.address = address(host, listener.getsockname()[1])
        self._page = page
        self._connections: list[asyncio.StreamWriter] = []  # the oldest first
        self._turn = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = Thread(target=self._run, args=(listener,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(
            self._connected, sock=listener, limit=_LARGEST_HEAD_BYTES
        )
        await self._closing.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.append(writer)
        if len(self._connections) > _MOST_CONNECTIONS:
            # Not the newest: it may be Prometheus, and the others those who hold connections open.
            self._connections[0].transport.abort()
        try:
            async with asyncio.timeout(_TIME_LIMIT_S):
                writer.write(await self._response(reader))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # whoever it was is gone, or too slow
        finally:
            self._connections.remove(writer)
            writer.transport.abort()  # does nothing where all was sent

    async def _response(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(_HEAD_END)
        except asyncio.LimitOverrunError:
            return _response("431 Request Header Fields Too Large")
        method, _, rest = head.partition(b" ")
        if rest.partition(b" ")[0].partition(b"?")[0] != _PATH.encode():
            return _response("404 Not Found")
        if method != b"GET":
            return _response("405 Method Not Allowed", "Allow: GET")
        return await self._answer()

    async def _answer(self) -> bytes:
        async with self._turn:
            try:
                page = await asyncio.to_thread(self._page)
            except Exception:  # the next scrape may be better
                logger.exception("the metrics could not be told")
                return _response("500 Internal Server Error")
        return _response("200 OK", f"Content-Type: {CONTENT_TYPE}", body=page)


def _response(status: str, *headers: str, body: str = "") -> bytes:
    content = (body or f"{status}\n").encode()
    head = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(content)}", "Connection: close"]
    return "\r\n".join(head).encode() + _HEAD_END + content


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _bound(socket.socket(family, kind), target)
    except OSError as error:
        raise StartError(
            f"cannot tell metrics on {address(host, port)}: {error.strerror}; choose others with "
            "--metrics-host and --metrics-port"
        ) from error


def _bound(listener: socket.socket, target: tuple[Any, ...]) -> socket.socket:
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
