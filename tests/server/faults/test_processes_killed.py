"""All workers killed at once, workers that cannot be started again, and a parent that is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from fault_table import NoteFault
from mlpserve.model.network import Network
from mlpserve.server.settings.config import MANUAL, ServerConfig
from mlpserve.server.system.ports import address
from mlpserve.server.workers.supervisor import Supervisor
from processes import children
from steady_load import SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]

TIMEOUT_S = 20.0
CLIENTS = 4
FAULTY_WORKER = Path(__file__).parents[1] / "workers" / "faulty_worker.py"


@pytest.mark.exhaustive
@pytest.mark.parametrize("retries", [True, False], ids=["with retries", "without"])
def test_all_workers_that_are_killed_at_once_are_replaced_again_and_again(
    run_server: RunServer,
    tiny_models: None,
    network: Network,
    note_fault: NoteFault,
    *,
    retries: bool,
) -> None:
    kills = 2
    with run_server("--workers", "2") as server:
        load = SteadyLoad(server.address, network, clients=CLIENTS, retries=retries)
        for _ in range(kills):
            load.wait_for_answers()
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)
            for _ in range(2):
                server.wait_for_line("another is started")
            load.wait_for_answers()
        figures = load.stop()
        server.stop()
    how = "clients retry" if retries else "clients never retry"
    outcome = "all replaced; until then nobody listens, which five tries in two seconds outlast"
    note_fault(f"kill -9 of all workers at once, {kills} times; {how}", figures, outcome)
    assert (figures.wrong, figures.lost) == (0, 0)
    # Nobody listens while workers start; on a busy machine five tries may be over before.
    assert figures.failed <= kills * CLIENTS * (2 if retries else 10), load.errors
    assert figures.longest_s < TIMEOUT_S


class CrashLoop:
    """A server of two workers, and the file that keeps new ones from starting."""

    def __init__(self, supervisor: Supervisor, marker: Path) -> None:
        self._others = set(children(os.getpid()))
        self.supervisor, self.marker = supervisor, marker
        supervisor.start()

    def workers(self) -> list[int]:
        """Return the ids of its workers."""
        return sorted({*children(os.getpid())} - self._others)


@pytest.fixture
def crash_loop(models: Path, tiny_models: None, tmp_path: Path) -> Iterator[CrashLoop]:
    """Return a server that nobody keeps from starting workers yet."""
    marker = tmp_path / "marker"
    command = (sys.executable, str(FAULTY_WORKER), "start not", str(marker))
    config = ServerConfig(models=models, port=0, workers=2, reload=MANUAL)
    supervisor = Supervisor(config, command=command)
    yield CrashLoop(supervisor, marker)
    supervisor.lifecycle.stop()
    supervisor.stop()


@pytest.mark.exhaustive
def test_workers_that_die_whenever_they_start_are_tried_less_and_less_often(
    crash_loop: CrashLoop, network: Network, note_fault: NoteFault
) -> None:
    marker = crash_loop.marker
    watched_s = 5
    load = SteadyLoad(address("127.0.0.1", crash_loop.supervisor.port), network, clients=CLIENTS)
    load.wait_for_answers()
    marker.touch()
    os.kill(crash_loop.workers()[0], signal.SIGKILL)
    Event().wait(watched_s)
    load.wait_for_answers()
    tries = marker.stat().st_size
    marker.unlink()
    while len(crash_loop.workers()) < 2:  # the test's own limit of time ends it otherwise
        load.wait_for_answers()
    load.wait_for_answers()
    figures = load.stop()
    note_fault(
        f"a killed worker whose successors die when they start, for {watched_s} s",
        figures,
        f"{tries} were tried, each after twice the pause of the last; replaced when one could be",
    )
    assert 1 <= tries <= 3
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors


def start_again(models: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models)]
    return subprocess.Popen(
        [*command, "--port", str(port), "--workers", "2"], stderr=subprocess.PIPE, text=True
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("retries", [True, False], ids=["with retries", "without"])
def test_a_parent_that_is_killed_takes_its_workers_with_it_and_the_next_gets_the_port(
    run_server: RunServer,
    models: Path,
    tiny_models: None,
    network: Network,
    note_fault: NoteFault,
    *,
    retries: bool,
) -> None:
    with run_server("--workers", "2", "--drain-seconds", "5") as server:
        workers = server.workers()
        load = SteadyLoad(server.address, network, clients=CLIENTS, retries=retries)
        load.wait_for_answers()
        server.process.kill()
        with start_again(models, server.port) as successor:
            assert successor.stderr is not None
            log = successor.stderr.readline()
            assert f"ready: serving tiny version 2 and 1 on {server.address}" in log
            load.wait_for_answers()
            figures = load.stop()
            assert not any(map(is_running, workers))
            successor.terminate()
            successor.communicate(timeout=TIMEOUT_S)
    how = "clients retry" if retries else "clients never retry"
    note_fault(
        f"kill -9 of the parent, and a new server at once; {how}",
        figures,
        "its workers end, the new server gets the port",
    )
    assert (figures.wrong, figures.lost) == (0, 0)
    assert figures.failed <= CLIENTS * (2 if retries else 10), load.errors


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
