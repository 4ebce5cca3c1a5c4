"""Callers send what makes counts many: metrics stay small, and others wait for none of it."""

import re
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any, Final

import grpc
import pytest

from fault_table import NoteFault
from mlpserve.model.network import Network
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from steady_load import SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]

TIMEOUT_S = 60.0
SIZES: Final = range(1, 8193, 4)
SCRAPES: Final = 5


@pytest.mark.exhaustive
def test_thousands_of_batch_sizes_cost_a_scrape_and_others_nothing(
    run_server: RunServer, tiny_models: None, network: Network, note_fault: NoteFault
) -> None:
    with (
        run_server("--workers", "2", "--metrics-port", "0") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for size in SIZES:
            image = prediction_pb2.ImageBatch(
                count=size, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6 * size)
            )
            stub.Predict(prediction_pb2.PredictRequest(images=image), timeout=TIMEOUT_S)
        url = next(found[0] for line in server.lines if (found := re.search(r"http://\S+", line)))
        page, started_s = "", monotonic()
        for _ in range(SCRAPES):
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - our own
                page = response.read().decode()
        scrape_s = (monotonic() - started_s) / SCRAPES
        figures = load.stop()
        server.stop()
    note_fault(
        f"{len(SIZES):,} batch sizes of one caller, then scrapes",
        figures,
        f"counted by powers of two above 64; a scrape takes {1000 * scrape_s:.0f} ms",
    )
    assert re.search(r"^mlpserve_workers 2\.0$", page, re.MULTILINE)
    assert re.search(r"^mlpserve_worker_scrapes_missed_total 0\.0$", page, re.MULTILINE)
    assert len(page.splitlines()) < 500
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
