"""Processes of a server that are killed: those beside them answer, and they are replaced."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from fault_table import NoteFault
from mlpserve.model.network import Network
from steady_load import SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("retries", [True, False], ids=["with retries", "without"])
def test_a_worker_that_is_killed_costs_at_most_the_calls_that_it_had_and_is_replaced(
    run_server: RunServer,
    tiny_models: None,
    network: Network,
    note_fault: NoteFault,
    *,
    retries: bool,
) -> None:
    kills = 3
    with run_server("--workers", "2") as server:
        load = SteadyLoad(server.address, network, clients=4, retries=retries)
        for _ in range(kills):
            load.wait_for_answers()
            os.kill(server.workers()[0], signal.SIGKILL)
            server.wait_for_line("another is started")
            server.wait_for_listeners(2)  # or the next kill leaves nobody who answers
        figures = load.stop()
        server.stop()
    how = "clients retry" if retries else "clients never retry"
    note_fault(f"kill -9 of a worker, {kills} times; {how}", figures, "replaced each time")
    assert (figures.wrong, figures.lost) == (0, 0)
    # Each of the clients has at most one call under way, and one that meets the closed connection.
    assert figures.failed <= (0 if retries else 2 * kills * 4), load.errors
