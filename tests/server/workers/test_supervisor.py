"""Workers that die, hang or fail while models are loaded, and their replacement."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlpserve.server.settings.config import MANUAL, ServerConfig
from mlpserve.server.system.ports import address
from mlpserve.server.workers.process import WORKER_COMMAND
from mlpserve.server.workers.supervisor import Supervisor
from mlpserve.v1 import (
    model_management_pb2,
    model_management_pb2_grpc,
    prediction_pb2,
    prediction_pb2_grpc,
)
from processes import children, suspend

TIMEOUT_S = 60.0
FAULTY_WORKER = Path(__file__).with_name("faulty_worker.py")
LIGHT_WORKER = Path(__file__).with_name("light_worker.py")

Publish = Callable[..., None]
Supervise = Callable[..., Supervisor]
Workers = Callable[[], list[int]]
RunServer = Callable[..., AbstractContextManager[Any]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def workers() -> Workers:
    """Return a function that returns the ids of the processes that the test has started."""
    before = set(children(os.getpid()))
    return lambda: sorted({*children(os.getpid())} - before)


@pytest.fixture
def supervise(models: Path, tmp_path: Path) -> Iterator[Supervise]:
    """Return a function that starts two workers, with a fault of `faulty_worker` or with none."""
    started: list[Supervisor] = []

    def start(fault: str | None = None, **settings: Any) -> Supervisor:
        config = ServerConfig(models=models, port=0, workers=2, reload=MANUAL, **settings)
        faulty = (sys.executable, str(FAULTY_WORKER), str(fault), str(tmp_path / "marker"))
        supervisor = Supervisor(config, command=WORKER_COMMAND if fault is None else faulty)
        started.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.lifecycle.stop()
        supervisor.stop()


def ask(supervisor: Supervisor) -> list[int]:
    """Return the versions that answer over several new connections."""
    target = address("127.0.0.1", supervisor.port)
    image = prediction_pb2.ImageBatch(
        count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
    )
    versions = []
    for _ in range(10):
        with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            request = prediction_pb2.PredictRequest(images=image)
            response = stub.Predict(request, timeout=TIMEOUT_S, wait_for_ready=True)
            versions.append(response.model_version)
    return versions


def reasons(supervisor: Supervisor) -> dict[int, str]:
    return dict(supervisor.lifecycle.controller.plan.models["tiny"].quarantined)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("die", "exit code -6"),
        pytest.param(
            "hang", "it took over 1 s to load, and was killed", marks=pytest.mark.exhaustive
        ),
        pytest.param("raise", "it failed to load, and was killed", marks=pytest.mark.exhaustive),
    ],
    ids=["dies", "hangs", "fails"],
)
def test_a_version_with_which_workers_are_lost_is_not_served_and_only_one_at_a_time_is_lost(
    supervise: Supervise, publish: Publish, workers: Workers, *, fault: str, reason: str
) -> None:
    publish("tiny", versions=1)
    supervisor = supervise(fault, load_timeout_s=1.0)
    before = workers()
    publish("tiny", versions=1)
    supervisor.lifecycle.controller.reload()
    assert reasons(supervisor)[2].endswith(f"the process that loaded it was lost: {reason}")
    assert ask(supervisor) == [1] * 10
    wait_until(lambda: len(workers()) == 2)
    assert len({*before} & {*workers()}) == 1  # the other one has never been asked to load it
    publish("tiny", versions=1)
    supervisor.lifecycle.controller.reload()
    assert ask(supervisor) == [3] * 10


@pytest.mark.exhaustive
def test_a_worker_that_dies_by_chance_while_it_loads_is_no_fault_of_the_version(
    supervise: Supervise, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish("tiny", versions=1)
    supervisor = supervise("die once")
    publish("tiny", versions=1)
    supervisor.lifecycle.controller.reload()
    assert reasons(supervisor) == {}
    assert ask(supervisor) == [2] * 10
    assert caplog.text.count("died, another is started: exit code -6") == 1


def test_a_worker_that_does_not_move_is_replaced_and_nothing_else_is_lost(
    supervise: Supervise, publish: Publish, workers: Workers
) -> None:
    publish("tiny", versions=1)
    supervisor = supervise(load_timeout_s=1.0)
    stopped, moving = workers()
    suspend(stopped)
    publish("tiny", versions=1)
    supervisor.lifecycle.controller.reload()
    assert ask(supervisor) == [2] * 10
    assert reasons(supervisor) == {}
    assert moving in workers()
    assert stopped not in workers()


def test_who_asks_for_a_load_that_takes_long_need_not_wait_and_others_are_answered(
    supervise: Supervise, publish: Publish
) -> None:
    publish("tiny", versions=1)
    supervisor = supervise("hang", allow_management=True)
    publish("tiny", versions=1)
    with grpc.insecure_channel(address("127.0.0.1", supervisor.port)) as channel:
        stub = model_management_pb2_grpc.ModelManagementServiceStub(channel)
        request = model_management_pb2.LoadModelRequest(model_name="tiny", model_version=2)
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            stub.LoadModel(request, timeout=0.5)
    assert ask(supervisor) == [1] * 10
    started_s = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - started_s < ServerConfig.stop_grace_s


@pytest.mark.exhaustive
def test_a_version_that_kills_workers_does_not_keep_a_server_from_starting(
    supervise: Supervise, tiny_models: None
) -> None:
    supervisor = supervise("die")
    assert ask(supervisor) == [1] * 10
    assert 2 in reasons(supervisor)


@pytest.mark.exhaustive
def test_a_new_worker_serves_what_the_others_serve_though_it_is_deleted_meanwhile(
    supervise: Supervise, models: Path, tiny_models: None, workers: Workers
) -> None:
    supervisor = supervise()
    shutil.rmtree(models / "tiny")
    before = workers()
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(workers()) == 2 and not {*before} & {*workers()})
    assert ask(supervisor) == [2] * 10


def test_the_parent_imports_neither_numpy_nor_grpc(
    run_server: RunServer, publish: Publish, models: Path
) -> None:
    program = "import sys; import mlpserve.server.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert not {"numpy", "grpc"} & {*done.stdout.split()}
    publish("tiny", versions=1)
    with run_server("--workers", "2") as server:
        publish("tiny", versions=1)
        server.wait_for_line("changed: serving tiny version 2 and 1")
        # What it has loaded while it served is not in any list of modules that we can see.
        assert not loads_libraries(server.process.pid)
        assert all(map(loads_libraries, server.workers()))
        server.stop()


def loads_libraries(process_id: int) -> bool:
    maps = Path(f"/proc/{process_id}/maps").read_text()
    return "/numpy/" in maps or "/grpc/" in maps


@pytest.mark.exhaustive
def test_more_workers_than_128_start_and_are_counted(models: Path, publish: Publish) -> None:
    publish("tiny", versions=1)
    config = ServerConfig(models=models, port=0, workers=130, reload=MANUAL)
    supervisor = Supervisor(config, command=(sys.executable, str(LIGHT_WORKER)))
    supervisor.start()
    try:
        assert supervisor.lifecycle.controller.plan.is_ready
        assert supervisor.aggregate.snapshot()["mlpserve_workers"] == [([], 130)]
    finally:
        supervisor.stop()
