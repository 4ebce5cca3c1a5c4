"""A server with bystanders, for somebody to attack, and what must be said of it afterwards."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, NamedTuple

import grpc
import pytest
import trustme

from fault_table import NoteFault
from footprint import Footprint
from mlpserve.model.network import Network
from steady_load import SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]
TIMEOUT_S: Final = 20.0
LONGEST_S: Final = 5.0  # that a bystander may wait, on a machine that does other things as well
MB: Final = 1 << 20
LOOK_PERIOD_S: Final = 0.02
# gRPC starts threads as it needs them, and keeps some; so does the pool that answers its calls.
MOST_NEW_THREADS: Final = 20


class Tls(NamedTuple):
    """A server's certificate and key, and what its clients trust."""

    chain: str
    key: str
    credentials: grpc.ChannelCredentials
    authority: trustme.CA

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the flags of a server that has it."""
        return ("--tls-certificate", self.chain, "--tls-key", self.key)


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    """Return a certificate for this machine, in files, and its authority."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    return Tls(str(chain), str(key), trusted, authority)


class Attacked:
    """A server that somebody attacks while others ask it.

    Args:
        server: As it runs.

    Attributes:
        address: The server's.
        before: What it took before.
        peak_bytes: The most memory that it had since.
        outcome: What came of the attack.
    """

    def __init__(self, server: Any) -> None:
        self.address: str = server.address
        self.server = server
        self.before = self.now()
        self.peak_bytes = self.before.memory_bytes
        self.outcome = ""
        self._is_over = Event()
        self._watcher = Thread(target=self._watch)
        self._watcher.start()

    @property
    def growth_mb(self) -> float:
        """Return by how much it had more memory at most."""
        return (self.peak_bytes - self.before.memory_bytes) / MB

    def now(self) -> Footprint:
        """Return what the server takes now."""
        return Footprint.of(self.server.process.pid)

    def end(self, most_mb_more: float) -> None:
        """Wait until it takes no more than before, but for what allocators and pools keep."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not self._is_as_before(most_mb_more):
            assert time.monotonic() < deadline_s, (self.before, self.now())
            self._is_over.wait(LOOK_PERIOD_S)
        self.close()

    def close(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._watcher.join()

    def _is_as_before(self, most_mb_more: float) -> bool:
        now = self.now()
        return (
            now.descriptors <= self.before.descriptors
            and now.threads <= self.before.threads + MOST_NEW_THREADS
            and now.memory_bytes <= self.before.memory_bytes + most_mb_more * MB
        )

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_PERIOD_S):
            self.peak_bytes = max(self.peak_bytes, self.now().memory_bytes)


@pytest.fixture
def attack(
    run_server: RunServer, tiny_models: None, network: Network, note_fault: NoteFault
) -> Callable[..., AbstractContextManager[Attacked]]:
    """Return a function that has a server attacked in a ``with`` block, and judges it at its end.

    No bystander may notice anything but a wait, and the server must be what it was before.
    """

    @contextmanager
    def attacked(
        fault: str,
        *flags: str,
        adapter: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        peak_mb: float = 100,
        most_mb_more: float = 50,
    ) -> Iterator[Attacked]:
        lane = ["--no-fast-lane"] if adapter == "public API" else []
        with run_server("--workers", "1", *lane, *flags) as server:
            load = SteadyLoad(server.address, network, clients=2, credentials=credentials)
            try:
                load.wait_for_answers()
                under = Attacked(server)
                try:
                    yield under
                    load.wait_for_answers()
                    under.end(most_mb_more)
                finally:
                    under.close()
            finally:
                figures = load.stop()
            server.stop()
        name = f"{fault}; {adapter}" if adapter else fault
        note_fault(name, figures, f"{under.outcome}; memory at most {under.growth_mb:+.0f} MB")
        assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
        assert figures.longest_s < LONGEST_S
        assert under.growth_mb < peak_mb

    return attacked
