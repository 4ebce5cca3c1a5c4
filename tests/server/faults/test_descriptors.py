"""Descriptors run out: more connections than a process may have files open."""

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from fault_table import NoteFault
from mlpserve.model.network import Network
from steady_load import SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]
Publish = Callable[..., None]

TIMEOUT_S = 60.0
OWN_FILES = 200
WATCHED_S = 2.0


@contextmanager
def flood(server: Any, connections: int) -> Iterator[None]:
    """Hold connections open that say nothing."""
    with ExitStack() as held:
        for _ in range(connections):
            target = ("127.0.0.1", server.port)
            held.enter_context(socket.create_connection(target, timeout=TIMEOUT_S))
        yield


def processor_s(process: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def processors_used(processes: list[int]) -> float:
    """Return how many processors some processes keep busy."""
    before_s = sum(map(processor_s, processes))
    Event().wait(WATCHED_S)
    return (sum(map(processor_s, processes)) - before_s) / WATCHED_S


@pytest.mark.exhaustive
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_small_limit_of_descriptors_leaves_room_for_all_but_too_many_connections(
    run_server: RunServer,
    publish: Publish,
    network: Network,
    note_fault: NoteFault,
    *,
    workers: str,
) -> None:
    connections = 4 * OWN_FILES
    publish("tiny", versions=1)
    limit = ("prlimit", f"--nofile={OWN_FILES}:{OWN_FILES}", "--")
    with run_server("--workers", workers, before=limit) as server:
        (warning,) = [line for line in server.lines if "max_connections: 100, not 1024" in line]
        assert f"no more than {OWN_FILES} files open" in warning
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        with flood(server, connections):
            load.wait_for_answers()
            publish("tiny", versions=1)
            server.wait_for_line("changed: serving tiny version 2 and 1")
        newcomer = SteadyLoad(server.address, network, clients=1)
        newcomer.wait_for_answers()
        load.wait_for_answers()
        figures, new = load.stop(), newcomer.stop()
        server.stop()
    assert not any("descriptor limit" in line.lower() for line in server.lines)
    note_fault(
        f"{connections} connections to {workers} worker(s) that may have {OWN_FILES} files open",
        figures,
        "half of them are for connections, which are closed beyond that; a new version was loaded "
        "meanwhile",
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
    assert (new.failed, new.wrong, new.lost) == (0, 0, 0), newcomer.errors


@pytest.mark.exhaustive
@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_a_descriptor_left_clients_are_answered_and_versions_wait(
    run_server: RunServer,
    publish: Publish,
    network: Network,
    note_fault: NoteFault,
    *,
    workers: str,
) -> None:
    publish("tiny", versions=1)
    with run_server("--workers", workers) as server:
        processes = server.workers() or [server.process.pid]
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        limits = take_all_descriptors(processes, but=2)
        with flood(server, 12 * len(processes)):
            load.wait_for_answers()
            publish("tiny", versions=1)
            server.wait_for_line("Too many open files" if workers == "1" else "too many files open")
            answered = load.stop()
            used = processors_used([server.process.pid, *processes])
        newcomer = SteadyLoad(server.address, network, clients=1)
        newcomer.wait_for_answers()
        restore(limits)
        server.wait_for_line("changed: serving tiny version 2 and 1")
        assert (server.workers() or [server.process.pid]) == processes
        newcomer.wait_for_answers()
        new = newcomer.stop()
        server.stop()
    note_fault(
        f"no descriptor is left to {workers} worker(s), and connections come",
        answered,
        f"they wait, {used:.0%} of a processor is used; a version waits too, and is loaded later",
    )
    assert (answered.failed, answered.wrong, answered.lost) == (0, 0, 0), load.errors
    assert (new.failed, new.wrong, new.lost) == (0, 0, 0), newcomer.errors
    assert used < 0.5


def take_all_descriptors(processes: list[int], *, but: int) -> dict[int, tuple[int, int]]:
    """Limit the open files of processes to those that they have, and a few; return the limits."""
    limits = {}
    for process in processes:
        highest = max(int(entry.name) for entry in Path(f"/proc/{process}/fd").iterdir())
        limits[process] = resource.prlimit(process, resource.RLIMIT_NOFILE)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (highest + 1 + but, limits[process][1]))
    return limits


def restore(limits: dict[int, tuple[int, int]]) -> None:
    for process, limit in limits.items():
        resource.prlimit(process, resource.RLIMIT_NOFILE, limit)
