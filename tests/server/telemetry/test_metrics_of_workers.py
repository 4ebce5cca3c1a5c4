"""One page for all processes of a server, whatever becomes of them."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from processes import children, suspend

TIMEOUT_S = 30.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Told:
    """A server of two workers that tells its metrics."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        log = process.stderr.readline() + process.stderr.readline()
        ready = re.search(r"ready: .* on (\S+)$", log, re.MULTILINE)
        page = re.search(r"metrics: (http://\S+)$", log, re.MULTILINE)
        assert ready is not None, log
        assert page is not None, log
        self.process_id = process.pid
        self._address, self._page = ready[1], page[1]

    def predict(self, count: int) -> None:
        """Make calls over connections of their own, so that all workers get some."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        image = prediction_pb2.ImageBatch(
            count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
        )
        for _ in range(count):
            with grpc.insecure_channel(self._address, options) as channel:
                stub = prediction_pb2_grpc.PredictionServiceStub(channel)
                stub.Predict(prediction_pb2.PredictRequest(images=image), timeout=TIMEOUT_S)

    def samples(self) -> dict[str, dict[str, float]]:
        """Return the values by metric, and by the labels as one text."""
        with urllib.request.urlopen(self._page, timeout=TIMEOUT_S) as response:  # noqa: S310 - our own
            page = response.read().decode()
        found: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                found.setdefault(sample.name, {})[" ".join(sample.labels.values())] = sample.value
        return found

    def value(self, name: str) -> float:
        """Return the sum of a metric over all labels."""
        return sum(self.samples().get(name, {}).values())

    def wait_until(self, name: str, holds: Callable[[float], bool]) -> float:
        """Ask for a metric until it is as expected; the test's limit of time ends it otherwise."""
        while not holds(value := self.value(name)):
            pass
        return value

    def workers(self) -> list[int]:
        """Return the ids of its processes but the first."""
        return children(self.process_id)


@pytest.fixture
def server(models: Path, tiny_models: None) -> Iterator[Told]:
    flags = ["--port", "0", "--workers", "2", "--metrics-port", "0"]
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models), *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        yield Told(process)
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0


def test_the_page_adds_up_what_all_workers_answer_and_tells_what_is_served(server: Told) -> None:
    server.predict(20)
    server.wait_until("mlpserve_requests_total", lambda value: value >= 20)
    samples = server.samples()
    assert samples["mlpserve_requests_total"] == {"OK Predict tiny 2": 20}
    assert samples["mlpserve_workers"] == {"": 2}
    assert samples["mlpserve_served_versions"] == {"tiny": 2}
    assert samples["mlpserve_quarantined_versions"] == {"tiny": 0}
    assert samples["mlpserve_loads_total"] == {"tiny loaded": 2}
    assert samples["mlpserve_generation"] == {"": 1}
    processes = {"supervisor", "worker-0", "worker-1"}
    assert set(samples["mlpserve_process_resident_bytes"]) == processes


def test_no_counter_falls_when_a_worker_is_killed(server: Told) -> None:
    server.predict(20)
    server.wait_until("mlpserve_requests_total", lambda value: value == 20)
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_until("mlpserve_worker_deaths_total", lambda value: value == 1)
    assert server.value("mlpserve_requests_total") == 20
    server.wait_until("mlpserve_workers", lambda value: value == 2)
    server.predict(5)
    server.wait_until("mlpserve_requests_total", lambda value: value == 25)


@pytest.mark.exhaustive
def test_a_worker_that_hangs_keeps_nobody_from_the_metrics_of_the_others(server: Told) -> None:
    server.predict(20)
    server.wait_until("mlpserve_requests_total", lambda value: value == 20)
    stopped = server.workers()[0]
    suspend(stopped)
    try:
        started_s = time.monotonic()
        samples = server.samples()
        assert time.monotonic() - started_s < TIMEOUT_S / 2
        assert samples["mlpserve_workers"] == {"": 1}
        assert samples["mlpserve_worker_scrapes_missed_total"] == {"": 1}
        assert samples["mlpserve_requests_total"] == {"OK Predict tiny 2": 20}
    finally:
        os.kill(stopped, signal.SIGCONT)
    server.wait_until("mlpserve_workers", lambda value: value == 2)
    assert server.value("mlpserve_requests_total") == 20
