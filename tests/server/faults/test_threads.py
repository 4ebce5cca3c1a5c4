"""Threads that cannot be started, and the serving thread that dies or hangs."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, Final

import grpc
import pytest

from fault_table import NoteFault
from mlpserve.model.network import Network
from mlpserve.server.settings.config import MANUAL, ServerConfig
from mlpserve.server.system.ports import address
from mlpserve.server.system.threads import EXIT_THREAD_DIED
from mlpserve.server.workers.supervisor import Supervisor
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from processes import children
from steady_load import REQUEST, SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]
ListModels = prediction_pb2.ListModelsRequest

TIMEOUT_S = 60.0
FAULTY: Final = str(Path(__file__).with_name("faulty_serving.py"))
CALLERS: Final = 8
# Threads get stacks of 64 MB, and the process 40 MB: much memory, and not one thread.
STREAMS: Final = 16
FLAGS: Final = ("--workers", "1", "--request-threads", "40", "--max-streams", str(2 * STREAMS))
STACK_KB: Final = 65_536
ROOM_BYTES: Final = 40 << 20


@contextmanager
def no_more_threads(process: int) -> Iterator[None]:
    """Give a process less memory for a while than one more thread takes."""
    before = resource.prlimit(process, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
    most_bytes = pages * resource.getpagesize() + ROOM_BYTES
    resource.prlimit(process, resource.RLIMIT_AS, (most_bytes, before[1]))
    yield
    with suppress(ProcessLookupError):  # it has ended
        resource.prlimit(process, resource.RLIMIT_AS, before)


def statuses(calls: Iterable[Any]) -> list[str]:
    """Return how calls end that are open at once."""
    return ["OK" if (error := call.exception()) is None else error.code().name for call in calls]


def list_models(stub: prediction_pb2_grpc.PredictionServiceStub) -> list[str]:
    return statuses(
        [stub.ListModels.future(ListModels(), timeout=TIMEOUT_S) for _ in range(CALLERS)]
    )


def streams(stub: prediction_pb2_grpc.PredictionServiceStub) -> set[str]:
    """Return how streams of one request end of which the first are still open when the last come.

    Some are answered also where no thread is left: gRPC's own end where they have nothing to do.
    """
    all_came = Event()

    def requests() -> Iterator[prediction_pb2.PredictStreamRequest]:
        all_came.wait(TIMEOUT_S)
        yield prediction_pb2.PredictStreamRequest(images=REQUEST.images)

    calls = [stub.PredictStream(requests(), timeout=TIMEOUT_S) for _ in range(STREAMS)]
    stub.ListModels(ListModels(), timeout=TIMEOUT_S)
    all_came.set()
    ends = set()
    for call in calls:
        with suppress(grpc.RpcError):
            list(call)
        ends.add(f"{call.code().name}: {call.details()}")
    return ends


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
@pytest.mark.parametrize(
    "adapter", ["--fast-lane", pytest.param("--no-fast-lane", marks=pytest.mark.exhaustive)]
)
def test_without_a_thread_left_all_but_streams_are_answered_and_streams_refused(
    run_server: RunServer,
    tiny_models: None,
    network: Network,
    note_fault: NoteFault,
    *,
    adapter: str,
) -> None:
    before = ("bash", "-c", f'ulimit -s {STACK_KB}; exec "$@"', "limited")
    with run_server(*FLAGS, adapter, before=before) as server:
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        with grpc.insecure_channel(server.address) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            with no_more_threads(server.process.pid):
                listed, streamed = list_models(stub), streams(stub)
                load.wait_for_answers()
            listed_later, streamed_later = list_models(stub), streams(stub)
        figures = load.stop()
        server.stop()
    note_fault(
        f"no thread can be started; {CALLERS} ListModels and {STREAMS} streams come; `{adapter}`",
        figures,
        "ListModels is answered, streams are refused: UNAVAILABLE; all are answered later",
    )
    assert listed == listed_later == ["OK"] * CALLERS
    refusal = "UNAVAILABLE: the server can start no thread for this request; try again later"
    assert refusal in streamed
    assert streamed <= {refusal, "OK: "}
    assert streamed_later == {"OK: "}
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
def test_a_server_is_stopped_in_time_though_no_thread_can_be_started(
    run_server: RunServer, tiny_models: None
) -> None:
    before = ("bash", "-c", f'ulimit -s {STACK_KB}; exec "$@"', "limited")
    with (
        run_server(*FLAGS, before=before) as server,
        no_more_threads(server.process.pid),
    ):
        server.stop()


@pytest.mark.parametrize(
    "adapter_flag", ["--fast-lane", pytest.param("--no-fast-lane", marks=pytest.mark.exhaustive)]
)
def test_a_server_whose_serving_thread_dies_ends_at_once(
    models: Path, tiny_models: None, tmp_path: Path, adapter_flag: str
) -> None:
    marker = tmp_path / "marker"
    command = [sys.executable, FAULTY, "dies", str(marker), "server", "--models", str(models)]
    command += ["--port", "0", "--workers", "1", adapter_flag]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Predict is answered by" in line:
                marker.touch()
        assert process.wait(TIMEOUT_S) == EXIT_THREAD_DIED
    assert "SystemError: a fault" in line


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("fault", "fast_lane", "became"),
    [
        ("dies", True, "its process ends at once, and is replaced"),
        pytest.param(
            *("dies", False, "its process ends at once, and is replaced"),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            *("hangs", True, "gives no heartbeat any more, and is replaced"),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_a_worker_whose_serving_thread_dies_or_hangs_is_replaced(
    models: Path,
    tiny_models: None,
    network: Network,
    tmp_path: Path,
    note_fault: NoteFault,
    *,
    fault: str,
    fast_lane: bool,
    became: str,
) -> None:
    marker = tmp_path / "marker"
    config = ServerConfig(
        models=models, port=0, workers=2, reload=MANUAL, worker_timeout_s=2.0, fast_lane=fast_lane
    )
    command = (sys.executable, FAULTY, fault, str(marker), "worker")
    supervisor = Supervisor(config, command=command)
    others = set(children(os.getpid()))
    supervisor.start()
    try:
        first = set(children(os.getpid())) - others
        load = SteadyLoad(address("127.0.0.1", supervisor.port), network)
        try:
            load.wait_for_answers()
            marker.touch()
            deadline_s = time.monotonic() + TIMEOUT_S
            while len(set(children(os.getpid())) - others - first) < 1:
                assert time.monotonic() < deadline_s
            load.wait_for_answers()
        finally:
            figures = load.stop()
        assert len(first & set(children(os.getpid()))) == 1
    finally:
        supervisor.stop()
    adapter = "--fast-lane" if fast_lane else "--no-fast-lane"
    note_fault(
        f"the serving thread of one of two workers {fault}, `--worker-timeout-s 2`; `{adapter}`",
        figures,
        became,
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
