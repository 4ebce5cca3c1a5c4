"""The wall clock is set, by hours, while calls are open: nothing is reckoned with it.

With libfaketime, which tells a process another time than the machine has, as a file says.
"""

import os
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest

from fault_table import NoteFault
from mlpserve.model.network import Network
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from steady_load import REQUEST, SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]
SetClock = Callable[[int], None]

TIMEOUT_S = 30.0
TIMES_SET = 30
HOURS = 5


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Return a function that sets the clock of servers off by so many hours."""
    # Where Debian has it.
    folder = Path("/usr/lib", str(sysconfig.get_config_var("MULTIARCH")), "faketime")
    library = folder / "libfaketimeMT.so.1"
    if not library.exists():
        if os.environ.get("CI"):
            pytest.fail("CI must set clocks, but libfaketime is not installed")
        pytest.skip("libfaketime is not installed")
    file = tmp_path / "clock"

    def set_by(hours: int) -> None:
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(f"{hours:+d}h")
        unfinished.replace(file)

    set_by(0)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return set_by


@pytest.mark.exhaustive
@pytest.mark.parametrize("adapter", ["--fast-lane", "--no-fast-lane"])
def test_a_clock_that_is_set_under_load_changes_nothing(
    run_server: RunServer,
    publish: Callable[..., None],
    set_clock: SetClock,
    network: Network,
    note_fault: NoteFault,
    *,
    adapter: str,
) -> None:
    publish("tiny", versions=1)
    with run_server("--workers", "1", adapter) as server:
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        with grpc.insecure_channel(server.address) as channel:
            responses = answers_of_a_stream(channel)
            for number in range(TIMES_SET):
                set_clock((HOURS, -HOURS, 0)[number % 3])
                load.wait_for_answers(3)
                assert next(responses).model_version == 1
        set_clock(-HOURS)
        publish("tiny", versions=1)
        server.wait_for_line("changed: serving tiny version 2 and 1")
        load.wait_for_answers()
        figures = load.stop()
        server.stop()
    note_fault(
        f"the clock set {HOURS} hours ahead and back, {TIMES_SET} times; `{adapter}`",
        figures,
        "nothing; a stream went on all the time, and a new version was found",
    )
    assert (figures.failed, figures.wrong) == (0, 0), load.errors
    # Between gRPC's reckoning and ours, the public API leaves a moment in which it may be set.
    assert figures.lost <= (2 if adapter == "--no-fast-lane" else 0), load.errors
    assert figures.longest_s < TIMEOUT_S / 2


def answers_of_a_stream(channel: grpc.Channel) -> Iterator[Any]:
    """Return the answers of one stream, which the server sends as they are taken."""
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    request = prediction_pb2.PredictStreamRequest(images=REQUEST.images)
    return iter(stub.PredictStream((request for _ in range(TIMES_SET)), timeout=TIMEOUT_S))
