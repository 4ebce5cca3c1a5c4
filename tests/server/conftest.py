"""Servers of the tiny model, on either adapter; and what they serve, without a server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlpserve.server.config import MANUAL, ServerConfig
from mlpserve.server.fast_lane import lane
from mlpserve.server.lifecycle.controller import Controller
from mlpserve.server.lifecycle.crew import LocalCrew
from mlpserve.server.lifecycle.generations import Generations, OwnBoard
from mlpserve.server.lifecycle.looking_after import Lifecycle
from mlpserve.server.registry import Registry
from mlpserve.server.serving import Server

StartServer = Callable[..., Server]


@dataclass(frozen=True)
class Local:
    """What one process serves of a models folder, without a server."""

    generations: Generations
    controller: Controller

    @property
    def registry(self) -> Registry:
        return self.generations.current

    @property
    def served(self) -> dict[str, list[int]]:
        return {
            name: [version.metadata.version for version in model.versions]
            for name, model in self.registry.models.items()
        }

    def reloaded(self) -> dict[str, list[int]]:
        self.controller.reload()
        return self.served


@pytest.fixture
def look_after() -> Callable[..., Local]:
    """Return what looks into a models folder once, and then whenever it is told to."""

    def started(models: Path, **settings: Any) -> Local:
        config = ServerConfig(models=models, reload=MANUAL, **settings)
        board = OwnBoard()
        generations = Generations(board, reproducible=config.reproducible)
        lifecycle = Lifecycle(config, LocalCrew(generations, board, activated=lambda: None))
        lifecycle.start()
        return Local(generations, lifecycle.controller)

    return started


@pytest.fixture(scope="session", autouse=True)
def this_release_is_tested() -> Iterator[None]:
    """Have the fast lane used with whichever grpcio is installed: these are the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "TESTED_RELEASES", lane.TESTED_RELEASES | {grpc.__version__})
        yield


@pytest.fixture(params=["fast lane", "public API"])
def adapter(request: pytest.FixtureRequest) -> str:
    """Return which adapter servers use; tests that start one are run with each."""
    name: str = request.param
    return name


@pytest.fixture
def start_server(models: Path, tiny_models: None, adapter: str) -> Iterator[StartServer]:
    """Return a function that starts a server of the tiny model with some settings."""
    started: list[Server] = []

    def start(**settings: Any) -> Server:
        config = ServerConfig(models=models, port=0, fast_lane=adapter == "fast lane", **settings)
        server = Server(config)
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
