"""Servers of the tiny model, on either adapter."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlpserve.server.config import ServerConfig
from mlpserve.server.fast_lane.check import why_unusable
from mlpserve.server.serving import Server

StartServer = Callable[..., Server]


@pytest.fixture(params=["fast lane", "public API"])
def adapter(request: pytest.FixtureRequest) -> str:
    """Return which adapter servers use; tests that start one are run with each."""
    name: str = request.param
    if name == "fast lane" and (reason := why_unusable()) is not None:
        pytest.skip(f"the fast lane is not used here: {reason}")
    return name


@pytest.fixture
def start_server(models: Path, tiny_models: None, adapter: str) -> Iterator[StartServer]:
    """Return a function that starts a server of the tiny model with some settings."""
    started: list[Server] = []

    def start(*, credentials: Any = None, **settings: Any) -> Server:
        config = ServerConfig(models=models, port=0, fast_lane=adapter == "fast lane", **settings)
        server = Server(config, credentials=credentials)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """Return a server that takes up to 64 images a request, and joins up to 128."""
    return start_server(max_batch_images=64, max_batch_rows=128)
