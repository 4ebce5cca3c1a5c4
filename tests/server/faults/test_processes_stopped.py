"""Processes of a server that live but do not run, as SIGSTOP has it: workers, the parent, all."""

import os
import re
import signal
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event
from typing import Any

import grpc
import pytest

from fault_table import NoteFault
from mlpserve.model.network import Network
from mlpserve.v1 import prediction_pb2_grpc
from processes import connections, suspend
from steady_load import REQUEST, SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]

CLIENTS = 8
SLACK_S = 10  # what a machine that does other things as well may add
SHORT_TIMEOUT_S = 2  # so that a test may wait for it; and a busy machine seldom takes as long
ANSWERS_WITHOUT_A_PAUSE = 5  # that a client gets in ten seconds, however busy the machine is


@contextmanager
def stopped(processes: Iterable[int]) -> Iterator[None]:
    """Keep processes from running for a while."""
    held = list(processes)
    for process in held:
        suspend(process)
    try:
        yield
    finally:
        for process in held:
            os.kill(process, signal.SIGCONT)


def newcomers_answered(address: str, count: int) -> int:
    """Return how many of some new connections are answered within a second."""
    channels = [
        grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(count)
    ]
    asked = [
        prediction_pb2_grpc.PredictionServiceStub(channel).Predict.future(REQUEST, timeout=1)
        for channel in channels
    ]
    answered = sum(call.exception() is None for call in asked)
    for channel in channels:
        channel.close()
    return answered


def metric(server: Any, name: str) -> float:
    """Return the value of a metric that has no labels."""
    page = next(found[0] for line in server.lines if (found := re.search(r"http://\S+", line)))
    with urllib.request.urlopen(page, timeout=10) as response:  # noqa: S310 - our own
        (value,) = re.findall(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    return float(value)


@pytest.mark.exhaustive
def test_a_worker_that_is_stopped_for_ten_seconds_keeps_only_its_own_clients_waiting(
    run_server: RunServer, tiny_models: None, network: Network, note_fault: NoteFault
) -> None:
    newcomers = 10
    with run_server("--workers", "2") as server:
        workers = server.workers()
        load = SteadyLoad(server.address, network, clients=CLIENTS)
        load.wait_for_answers()
        own = connections(workers[0], server.port)
        with stopped(workers[:1]):
            before = load.answered()
            Event().wait(10)
            waiting = sum(
                now - then < ANSWERS_WITHOUT_A_PAUSE
                for then, now in zip(before, load.answered(), strict=True)
            )
            answered = newcomers_answered(server.address, newcomers)
        load.wait_for_answers()
        figures = load.stop()
        assert server.workers() == workers
        server.stop()
    note_fault(
        "SIGSTOP of one of two workers for 10 s",
        figures,
        f"goes on where it was; {waiting} of {CLIENTS} clients were its own and waited, "
        f"and {newcomers - answered} of {newcomers} new connections",
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
    assert figures.longest_s < 10 + SLACK_S
    assert waiting == own


@pytest.mark.exhaustive
@pytest.mark.parametrize("retries", [True, False], ids=["with retries", "without"])
def test_a_worker_that_gives_no_heartbeat_is_replaced_and_counted(
    run_server: RunServer,
    tiny_models: None,
    network: Network,
    note_fault: NoteFault,
    *,
    retries: bool,
) -> None:
    limit = ("--worker-timeout-s", str(SHORT_TIMEOUT_S))
    with run_server("--workers", "2", "--metrics-port", "0", *limit) as server:
        load = SteadyLoad(server.address, network, clients=CLIENTS, retries=retries)
        load.wait_for_answers()
        hung, kept = server.workers()
        suspend(hung)
        server.wait_for_line("it gave no heartbeat for 2 s, and was killed")
        load.wait_for_answers()
        figures = load.stop()
        assert kept in server.workers()
        assert hung not in server.workers()
        assert metric(server, "mlpserve_worker_hangs_total") == 1
        assert metric(server, "mlpserve_worker_deaths_total") == 1
        server.stop()
    how = "clients retry" if retries else "clients never retry"
    note_fault(
        f"SIGSTOP of a worker for good, `--worker-timeout-s {SHORT_TIMEOUT_S}`; {how}",
        figures,
        "replaced",
    )
    assert (figures.wrong, figures.lost) == (0, 0)
    assert figures.failed <= (0 if retries else 2 * CLIENTS), load.errors
    assert figures.longest_s < SHORT_TIMEOUT_S + SLACK_S


@pytest.mark.exhaustive
@pytest.mark.parametrize("whole", [False, True], ids=["parent", "parent and workers"])
def test_time_in_which_the_parent_is_stopped_is_not_held_against_workers(
    run_server: RunServer,
    tiny_models: None,
    network: Network,
    note_fault: NoteFault,
    *,
    whole: bool,
) -> None:
    pause_s = 2 * SHORT_TIMEOUT_S
    with run_server("--workers", "2", "--worker-timeout-s", str(SHORT_TIMEOUT_S)) as server:
        workers = server.workers()
        load = SteadyLoad(server.address, network, clients=CLIENTS)
        load.wait_for_answers()
        with stopped([server.process.pid, *(workers if whole else [])]):
            Event().wait(pause_s)
        load.wait_for_answers()
        figures = load.stop()
        assert server.workers() == workers
        os.kill(workers[0], signal.SIGKILL)
        server.wait_for_line("another is started")
        server.stop()
    note_fault(
        f"SIGSTOP of {'parent and workers' if whole else 'the parent'} for {pause_s} s",
        figures,
        "goes on where it was" if whole else "workers go on without it",
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
    assert figures.longest_s < (pause_s if whole else 0) + SLACK_S
