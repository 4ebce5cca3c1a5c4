"""Servers of the tiny model, on either adapter or as users run them; and what they serve."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import IO, Any

import grpc
import pytest

from mlpserve.server.grpc_api.fast_lane import lane
from mlpserve.server.inference.registry import Registry
from mlpserve.server.models.controller import Controller
from mlpserve.server.models.generations import Generations, LocalPool
from mlpserve.server.models.lifecycle import Lifecycle
from mlpserve.server.server import Server
from mlpserve.server.settings.config import MANUAL, ServerConfig
from processes import children

StartServer = Callable[..., Server]
TIMEOUT_S = 60.0


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
def serve_folder() -> Callable[..., Local]:
    """Return what looks into a models folder once, and then whenever it is told to."""

    def started(models: Path, **settings: Any) -> Local:
        config = ServerConfig(models=models, reload=MANUAL, **settings)
        pool = LocalPool(
            reproducible=config.reproducible,
            default_model=config.default_model,
            activated=lambda: None,
        )
        lifecycle = Lifecycle(config, pool)
        lifecycle.start()
        return Local(pool.generations, lifecycle.controller)

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


class Running:
    """A server that is ready, or waits for its first version, in a process of its own.

    Args:
        process: The server's.

    Attributes:
        process: The server's; the parent of all others that it has.
        lines: The lines that it has logged so far.
        address: Where it listens.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._unread: SimpleQueue[str] = SimpleQueue()
        # Where nobody reads, the server would wait, sooner or later, to write.
        self._reader = Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._reader.start()
        while (found := re.search(r"ready: .* on ([^ ,]+:[0-9]+)", self.log_line())) is None:
            assert self.lines[-1], self.lines
        self.address = found[1]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def log_line(self) -> str:
        """Wait for the next line of the log; it is empty where there is none any more."""
        self.lines.append(self._unread.get(timeout=TIMEOUT_S))
        return self.lines[-1]

    def wait_for_line(self, part: str) -> None:
        """Wait until a line is logged that has this part."""
        while part not in (line := self.log_line()):
            assert line, self.lines

    def workers(self) -> list[int]:
        """Return the ids of its processes but the first."""
        return children(self.process.pid)

    def listeners(self) -> int:
        """Return how many sockets listen on its port."""
        listening = "0A"
        tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        rows = [row.split() for table in tables for row in table]
        return sum(row[1].endswith(f":{self.port:04X}") and row[3] == listening for row in rows)

    def wait_for_listeners(self, count: int) -> None:
        """Wait until so many of its processes listen on its port."""
        deadline_s = monotonic() + TIMEOUT_S
        while self.listeners() != count:
            assert monotonic() < deadline_s, self.lines

    def stop(self) -> None:
        """Stop it as it is meant to be, and take the rest of its log."""
        self.process.terminate()
        exit_code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        while self.log_line():
            pass
        assert exit_code == 0, self.lines

    def _read(self, log: IO[str]) -> None:
        for line in log:
            self._unread.put(line)
        self._unread.put("")


@pytest.fixture
def run_server(models: Path) -> Callable[..., AbstractContextManager[Running]]:
    """Return a function that runs a server of the models folder with some flags.

    With ``before``, a command that ends with another, and the server is that one.
    """

    @contextmanager
    def run(*flags: str, before: Sequence[str] = ()) -> Iterator[Running]:
        command = [sys.executable, "-m", "mlpserve.server", "--models", str(models), "--port", "0"]
        command = [*before, *command, *flags]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield Running(process)
            finally:
                process.kill()

    return run
