"""A server of several processes, as its users run it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.model.folder import weights_path
from mlpserve.model.processors import granted_processors
from mlpserve.server.errors import StartError
from mlpserve.server.system.ports import SharedPort, check_free
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 60.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
RunServer = Callable[..., AbstractContextManager[Any]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def answers(address: str, version: int = 2) -> bool:
    """Return whether a call over a new connection is answered, by this version."""
    image = prediction_pb2.ImageBatch(
        count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        request = prediction_pb2.PredictRequest(images=image)
        return stub.Predict(request, timeout=TIMEOUT_S).model_version == version


def health(address: str) -> int:
    """Return what is answered, over a new connection, to who asks for the server's health."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest()
        return int(stub.Check(asked, timeout=TIMEOUT_S, wait_for_ready=True).status)


def kept_to(process_ids: Iterable[int]) -> list[set[int]]:
    """Return the processors that all threads of each process may use."""
    return [set.intersection(*affinities(process_id)) for process_id in process_ids]


def affinities(process_id: int) -> Iterator[set[int]]:
    for thread in Path(f"/proc/{process_id}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            yield os.sched_getaffinity(int(thread.name))


@contextmanager
def busy_connection(address: str) -> Iterator[None]:
    """Make several calls at a time over one connection, which cost the server much."""
    images = prediction_pb2.ImageBatch(
        count=32, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6 * 32)
    )
    request = prediction_pb2.ExplainRequest(images=images, steps=256)
    is_over = Event()
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(3) as pool:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)

        def call() -> None:
            while not is_over.is_set():
                stub.Explain(request, timeout=TIMEOUT_S)

        calls = [pool.submit(call) for _ in range(3)]
        try:
            yield
        finally:
            is_over.set()
            for each in calls:
                each.result()


def has_ended(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_workers_share_a_port_and_one_is_a_single_process(
    run_server: RunServer, tiny_models: None
) -> None:
    with run_server("--workers", "3") as server:
        assert len(server.workers()) == 3
        server.wait_for_line("workers: 3, BLAS threads of each: 1")
        assert server.listeners() == 3
        assert all(answers(server.address) for _ in range(10))
        server.stop()
    with run_server("--workers", "1") as server:
        assert server.workers() == []
        assert answers(server.address)
        server.stop()


@pytest.mark.skipif(granted_processors() < 2, reason="needs two processors")
def test_as_many_workers_as_processors_keep_to_one_each(
    run_server: RunServer, tiny_models: None
) -> None:
    usable = os.sched_getaffinity(0)
    count = str(len(usable))
    with run_server("--workers", count) as server:
        assert sorted(map(sorted, kept_to(server.workers()))) == [[each] for each in sorted(usable)]
        server.stop()


@pytest.mark.alone
@pytest.mark.exhaustive
@pytest.mark.skipif(granted_processors() < 2, reason="needs two processors")
def test_many_calls_over_one_connection_have_the_processors_of_workers_that_idle(
    run_server: RunServer, tiny_models: None
) -> None:
    usable = os.sched_getaffinity(0)
    with run_server("--workers", str(len(usable))) as server:
        own = kept_to(server.workers())
        with busy_connection(server.address):
            while usable not in kept_to(server.workers()):  # the test's own limit of time ends it
                Event().wait(0.05)
        while kept_to(server.workers()) != own:
            Event().wait(0.05)
        server.stop()


@pytest.mark.exhaustive
@pytest.mark.parametrize("more", [0, 1], ids=["--no-pin", "one worker more"])
def test_workers_that_are_not_to_be_pinned_or_are_too_many_run_anywhere(
    run_server: RunServer, tiny_models: None, more: int
) -> None:
    usable = os.sched_getaffinity(0)
    flags = [] if more else ["--no-pin"]
    with run_server("--workers", str(len(usable) + more), *flags) as server:
        assert all(os.sched_getaffinity(worker) == usable for worker in server.workers())
        server.stop()


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(
    run_server: RunServer, tiny_models: None
) -> None:
    with run_server("--workers", "2") as server:
        killed, kept = server.workers()
        os.kill(killed, signal.SIGKILL)
        server.wait_for_line(f"worker {killed} died, another is started: exit code -9")
        assert answers(server.address)
        while server.listeners() < 2:  # the test's own limit of time ends it otherwise
            assert answers(server.address)
        first, second = server.workers()
        assert kept in {first, second}
        assert killed not in {first, second}
        server.stop()


def test_a_signal_to_all_processes_stops_the_server_and_replaces_nobody(
    run_server: RunServer, tiny_models: None
) -> None:
    with run_server("--workers", "2") as server:
        for process in (*server.workers(), server.process.pid):
            os.kill(process, signal.SIGTERM)
        server.stop()
    assert not any("another is started" in line for line in server.lines)
    assert "stopped" in server.lines[-2]  # the last one is the end of the log


@pytest.mark.exhaustive
def test_a_worker_that_alone_is_told_to_stop_answers_what_it_has_and_is_replaced(
    run_server: RunServer, tiny_models: None
) -> None:
    with run_server("--workers", "2") as server:
        told, kept = server.workers()
        os.kill(told, signal.SIGTERM)
        server.wait_for_line(f"worker {told} ended by itself, another is started: exit code 0")
        while server.listeners() < 2:  # the test's own limit of time ends it otherwise
            assert answers(server.address)
        assert kept in server.workers()
        server.stop()


def test_workers_end_when_their_parent_is_killed(run_server: RunServer, tiny_models: None) -> None:
    with run_server("--workers", "2") as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait(TIMEOUT_S)
        while not all(map(has_ended, workers)):
            pass


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.exhaustive)])
def test_a_second_server_on_the_port_is_refused(
    run_server: RunServer, models: Path, tiny_models: None, workers: str
) -> None:
    with run_server("--workers", "2") as server:
        port = str(server.port)
        command = [sys.executable, "-m", "mlpserve.server", "--models", str(models)]
        second = subprocess.run(
            [*command, "--port", port, "--workers", workers],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in second.stderr
        assert answers(server.address)
        server.stop()


def test_a_port_is_held_before_anything_listens_on_it_and_given_back() -> None:
    held = SharedPort("127.0.0.1", 0)
    with pytest.raises(StartError, match="Address already in use; choose others with --host and"):
        SharedPort("127.0.0.1", held.port)
    held.close()
    check_free("127.0.0.1", held.port)
    SharedPort("127.0.0.1", held.port).close()


def test_workers_of_an_empty_folder_wait_for_a_first_version_and_are_ready_together(
    run_server: RunServer, models: Path, publish: Callable[..., None]
) -> None:
    models.mkdir()
    with run_server("--workers", "2") as server:
        assert "has no NAME/VERSION/weights.npz that can be used" in server.lines[-1]
        for _ in range(10):
            assert health(server.address) == NOT_SERVING
            with pytest.raises(grpc.RpcError, match="UNAVAILABLE") as failure:
                answers(server.address)
            assert "no model is served yet" in str(failure.value)
        publish("tiny", versions=1)  # of two, the first might be served before the second comes
        while not all(health(server.address) == SERVING for _ in range(10)):
            pass  # the test's own limit of time ends it otherwise
        assert all(answers(server.address, version=1) for _ in range(10))
        server.stop()


@pytest.mark.exhaustive
def test_a_version_that_cannot_be_served_is_named_once_for_all_workers(
    run_server: RunServer, models: Path, tiny_models: None
) -> None:
    path = weights_path(models, "tiny", 2)
    path.write_bytes(path.read_bytes()[:-1])
    with run_server("--workers", "3") as server:
        server.stop()
    named = [line for line in server.lines if "not served: tiny version 2" in line]
    assert len(named) == 1
    assert not any("Traceback" in line for line in server.lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "2", "--models", "/dev/null"], "models: expected a folder, got a file"),
        (["--workers", "-1"], "--workers: expected a whole number, at least 0"),
        (["--threads", "0"], "--threads: expected a whole number, at least 1"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlpserve.server", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert message in done.stderr
