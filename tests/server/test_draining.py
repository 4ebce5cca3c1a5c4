"""Servers that are stopped under load: what they accepted is answered, and nobody else notices."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from mlpserve.client import Client

IMAGES = np.zeros((3, 6), np.uint8)
CLIENTS = 4
LEAST_CALLS = 200


@contextmanager
def running(models: Path, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a server as its users do; yield the process and its address."""
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models), "--port", "0"]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            ready = re.search(r"ready: .* on (\S+)$", process.stderr.readline())
            assert ready is not None
            yield process, ready[1]
        finally:
            process.kill()


class Load:
    """Clients that call without a pause until they are told to stop."""

    def __init__(self, target: str) -> None:
        self._stopping = Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self.has_begun = Event()
        self._calls = [self._pool.submit(self._call, target) for _ in range(CLIENTS)]

    def stop(self) -> int:
        """Return how many calls were answered; raises what a call has raised."""
        self._stopping.set()
        return sum(call.result() for call in self._calls)

    def _call(self, target: str) -> int:
        answered = 0
        with Client(target) as client:
            while not self._stopping.is_set() or answered < LEAST_CALLS:
                assert len(client.predict(IMAGES)) == len(IMAGES)
                answered += 1
                if answered == LEAST_CALLS:
                    self.has_begun.set()
        return answered


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.exhaustive)])
def test_clients_of_two_servers_lose_no_call_when_one_is_stopped(
    models: Path, tiny_models: None, workers: str
) -> None:
    flags = ("--workers", workers, "--drain-seconds", "0.2")
    with ExitStack() as stack:
        (process, first), (_, second) = (
            stack.enter_context(running(models, *flags)) for _ in range(2)
        )
        load = Load(f"ipv4:{first},{second}")
        assert load.has_begun.wait(60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        answered = load.stop()
    print(f"{answered} calls over the stop of a server of {workers} worker(s), none failed")  # noqa: T201
    assert answered >= CLIENTS * LEAST_CALLS


def test_a_second_signal_ends_the_wait(models: Path, tiny_models: None) -> None:
    with running(models, "--drain-seconds", "600") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert any("stopping" in line for line in process.stderr)
        while process.poll() is None:  # signals that come together count as one
            process.send_signal(signal.SIGTERM)
        assert process.returncode in {0, -signal.SIGTERM}
