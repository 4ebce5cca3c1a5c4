"""A server of several processes, as its users run it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from mlpserve.model.processors import granted_processors
from mlpserve.server.errors import StartError
from mlpserve.server.ports import SharedPort, check_free
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 20.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Running:
    """A server that is ready."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        line = self.log_line()
        ready = re.search(r"ready: .* on (\S+)$", line)
        assert ready is not None, line
        self.address = ready[1]
        self.how = self.log_line()

    def log_line(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def workers(self) -> list[int]:
        """Return the ids of its processes but the first."""
        process_id = self.process.pid
        children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
        return [int(child) for child in children.split()]

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0


@contextmanager
def running(models: Path, *arguments: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def answers(address: str) -> bool:
    """Return whether a call over a new connection is answered."""
    image = prediction_pb2.ImageBatch(
        count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        request = prediction_pb2.PredictRequest(images=image)
        return stub.Predict(request, timeout=TIMEOUT_S).model_version == 2


def has_ended(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def listeners(port: int) -> int:
    """Return how many sockets listen on a port."""
    listening = "0A"
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == listening for row in rows)


def test_workers_share_a_port_and_one_is_a_single_process(models: Path, tiny_models: None) -> None:
    with running(models, "--port", "0", "--workers", "3") as server:
        assert len(server.workers()) == 3
        assert "workers: 3, BLAS threads of each: 1" in server.how
        assert listeners(int(server.address.rpartition(":")[2])) == 3
        assert all(answers(server.address) for _ in range(10))
        server.stop()
    with running(models, "--port", "0", "--workers", "1") as server:
        assert server.workers() == []
        assert answers(server.address)
        server.stop()


@pytest.mark.skipif(granted_processors() < 2, reason="needs two processors")
def test_as_many_workers_as_processors_keep_to_one_each_and_others_to_none(
    models: Path, tiny_models: None
) -> None:
    usable = os.sched_getaffinity(0)
    count = str(len(usable))
    with running(models, "--port", "0", "--workers", count) as server:
        kept_to = [os.sched_getaffinity(worker) for worker in server.workers()]
        assert sorted(map(sorted, kept_to)) == [[processor] for processor in sorted(usable)]
        server.stop()
    for flags in (["--workers", count, "--no-pin"], ["--workers", str(len(usable) + 1)]):
        with running(models, "--port", "0", *flags) as server:
            assert all(os.sched_getaffinity(worker) == usable for worker in server.workers())
            server.stop()


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(
    models: Path, tiny_models: None
) -> None:
    with running(models, "--port", "0", "--workers", "2") as server:
        port = int(server.address.rpartition(":")[2])
        killed, kept = server.workers()
        os.kill(killed, signal.SIGKILL)
        line = server.log_line()
        assert f"worker {killed} died, another is started: exit code -9" in line
        assert answers(server.address)
        while listeners(port) < 2:  # the test's own limit of time ends it otherwise
            assert answers(server.address)
        first, second = server.workers()
        assert kept in {first, second}
        assert killed not in {first, second}
        server.stop()


def test_workers_end_when_their_parent_is_killed(models: Path, tiny_models: None) -> None:
    with running(models, "--port", "0", "--workers", "2") as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait(TIMEOUT_S)
        while not all(map(has_ended, workers)):
            pass


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_server_on_the_port_is_refused(
    models: Path, tiny_models: None, workers: str
) -> None:
    with running(models, "--port", "0", "--workers", "2") as server:
        port = server.address.rpartition(":")[2]
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


def test_workers_that_cannot_serve_say_so_once(models: Path, publish: Callable[..., None]) -> None:
    models.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "mlpserve.server", "--models", str(models), "--workers", "3"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("found none that can be used") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "-1"], "--workers: expected a whole number, at least 0"),
        (["--threads", "0"], "--threads: expected a whole number, at least 1"),
    ],
    ids=str,
)
def test_a_count_that_makes_no_sense_is_refused(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlpserve.server", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert message in done.stderr
