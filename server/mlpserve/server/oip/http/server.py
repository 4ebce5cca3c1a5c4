"""HTTP server in a thread of its own, opened as the settings say."""

import socket
from collections.abc import Sequence
from functools import partial
from threading import Event, Thread
from typing import Final

import uvicorn
from starlette.applications import Starlette

from mlpserve.server.errors import StartError
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.oip.http.app import OpenInference
from mlpserve.server.oip.http.limits import MAX_CONNECTIONS, SPARE_CONNECTIONS, TimeoutProtocol
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.repository import Repository
from mlpserve.server.security.admission import Admission
from mlpserve.server.security.tls import HttpTls, http_tls
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.system.ports import listening_sockets
from mlpserve.server.system.threads import end_process_with
from mlpserve.server.telemetry.recorder import Recorder

_START_TIMEOUT_S: Final = 30.0
_BACKLOG: Final = 128  # asyncio accepts so many before it looks at any; each has a descriptor


class HttpServer:
    """Serves an ASGI application on sockets that listen already.

    Args:
        application: What answers.
        sockets: Where; closed with the server.
        stop_grace_s: How long open requests may take when it is stopped.
        keep_alive_s: How long a connection may be idle between two requests.
        tls: Returns the context of a new connection, as its files are by then; None for plain
            connections.
    """

    def __init__(
        self,
        application: Starlette,
        sockets: Sequence[socket.socket],
        *,
        stop_grace_s: float,
        keep_alive_s: float,
        tls: HttpTls | None,
    ) -> None:
        self._tls = tls
        config = uvicorn.Config(
            application,
            http=partial(TimeoutProtocol, tls=tls and tls.get),  # type: ignore[arg-type] # called
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS + SPARE_CONNECTIONS,
            timeout_graceful_shutdown=max(1, int(stop_grace_s)),
            timeout_keep_alive=max(1, round(keep_alive_s)),
            backlog=_BACKLOG,
        )
        self._server = _StartingServer(config)
        self._sockets = list(sockets)
        self._thread = Thread(target=self._serve, name="http", daemon=True)

    @property
    def port(self) -> int:
        """Return the port that is really used."""
        first = self._sockets[0]
        port: int = 0 if first.family is socket.AF_UNIX else first.getsockname()[1]
        return port

    def start(self) -> None:
        """Answer requests.

        Raises:
            StartError: It does not start.
        """
        end_process_with(self._thread)
        self._thread.start()
        if not self._server.has_started.wait(_START_TIMEOUT_S):
            raise StartError(f"http_port: the HTTP server did not start in {_START_TIMEOUT_S:g} s")

    def reload(self) -> None:
        """Read the certificates now, if they have changed."""
        if self._tls is not None:
            self._tls.reload()

    def stop(self) -> None:
        """Refuse new connections, answer open requests, and end."""
        self._server.should_exit = True
        if self._thread.ident is not None:  # it was started
            self._thread.join()
        for opened in self._sockets:
            opened.close()

    def _serve(self) -> None:
        self._server.run(self._sockets)


class _StartingServer(uvicorn.Server):
    """Says when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.has_started.set()


def open_http(
    config: ServerConfig,
    inference: Inference,
    repository: Repository,
    *,
    batcher: Batcher,
    recorder: Recorder,
    admission: Admission,
) -> HttpServer:
    """Return an HTTP server whose port is taken, and that is not started yet.

    Args:
        config: The settings.
        inference: Parses inference requests.
        repository: Answers all other requests.
        batcher: Runs the networks.
        recorder: Records calls.
        admission: Lets requests in.

    Raises:
        StartError: The port is taken.
    """
    endpoints = OpenInference(
        inference,
        repository,
        batcher,
        recorder,
        max_body_bytes=config.max_message_bytes,
        admission=admission,
        allowed_origins=config.http_allowed_origins.names,
    )
    return HttpServer(
        endpoints.application(),
        listening_sockets(config.http_host, config.http_port, shares_port=config.shares_port),
        stop_grace_s=config.stop_grace_s,
        keep_alive_s=config.http_keep_alive_s,
        tls=http_tls(config),
    )
