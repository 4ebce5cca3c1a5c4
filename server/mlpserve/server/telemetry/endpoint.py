"""Metrics endpoint: Prometheus fetches GET /metrics from it over HTTP.

It has a thread of its own.
Callers that are slow, silent or many cost a connection for a few seconds, and nobody else's turn.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from threading import Thread
from typing import Any, Final

from mlpserve.server.settings.config import NO_PORT, ServerConfig
from mlpserve.server.system.ports import address, listening_sockets
from mlpserve.server.system.threads import end_process_with
from mlpserve.server.telemetry.snapshots import Aggregate

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PATH: Final = "/metrics"
_MAX_CONNECTIONS: Final = 32
_MAX_HEAD_BYTES: Final = 8192
_TIME_LIMIT_S: Final = 5.0  # of a connection, from its begin to its end
_HEAD_END: Final = b"\r\n\r\n"

logger = logging.getLogger(__name__)


def open_endpoint(config: ServerConfig, aggregate: Aggregate[Any]) -> "MetricsEndpoint | None":
    """Open the endpoint of a server, and log where; None where its settings want none.

    Raises:
        StartError: As for ``MetricsEndpoint``.
    """
    if config.metrics_port == NO_PORT:
        return None

    def page() -> str:
        # Not before it is asked for: the library takes 60 ms, which no start has to wait for.
        from mlpserve.server.telemetry.exposition import exposition  # noqa: PLC0415

        return exposition(aggregate.snapshot())

    endpoint = MetricsEndpoint(config.metrics_host, config.metrics_port, page)
    logger.info("metrics: http://%s%s", endpoint.address, _PATH)
    return endpoint


class MetricsEndpoint:
    """Server of the page with the metrics, from the moment that it is made.

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
        listeners = listening_sockets(host, port, flags="--metrics-host and --metrics-port")
        self.address = address(host, listeners[0].getsockname()[1])
        self._page = page
        self._connections: list[asyncio.StreamWriter] = []  # the oldest first
        self._turn = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = Thread(target=self._run, args=(listeners,), name="metrics", daemon=True)
        end_process_with(self._thread)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self, listeners: list[socket.socket]) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listeners))

    async def _serve(self, listeners: list[socket.socket]) -> None:
        servers = [
            await asyncio.start_server(self._connected, sock=listener, limit=_MAX_HEAD_BYTES)
            for listener in listeners
        ]
        await self._closing.wait()
        for server in servers:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.append(writer)
        if len(self._connections) > _MAX_CONNECTIONS:
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
