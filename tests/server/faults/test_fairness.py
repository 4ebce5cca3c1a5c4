"""One caller asks for more than its share, in every way that there is: others wait no longer."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, Final

import grpc
import numpy as np
import pytest

from fault_table import NoteFault
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.oip import inference_pb2 as pb
from oip_calls import raw_request
from steady_load import SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]

WIDTH: Final = 2000  # so that a pass over the largest batch takes a tenth of a second
ROWS: Final = 8192
IN_FLIGHT: Final = 6
PASSES: Final = 12
MAX_WAIT_S: Final = 10.0  # it waits for ever where it has no turns


@pytest.fixture
def slow_network(models: Path, model: Model) -> Network:
    """Return a network that is slow with many images, and is published."""
    rng = np.random.default_rng(5)
    hidden = Layer(rng.normal(size=(6, WIDTH)).astype("f4"), np.zeros(WIDTH, "f4"), "tanh")
    last = Layer(rng.normal(size=(WIDTH, 3)).astype("f4") / 50, np.zeros(3, "f4"), "softmax")
    network = Network((hidden, last))
    publish_model(models, Model(network, replace(model.metadata, layer_sizes=(6, WIDTH, 3))))
    return network


@contextmanager
def flood(address: str, passes: int, **fields: Any) -> Iterator[Event]:
    """Keep so many large requests of one connection waiting; yield what is set after some."""
    images = np.zeros((ROWS, 6), np.uint8)
    request = raw_request(images, **fields).SerializeToString()
    ended, enough, answered = Event(), Event(), []
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def ask(_: object = None) -> None:
            answered.append(1)
            if len(answered) > passes:
                enough.set()
            if not ended.is_set():
                infer.future(request).add_done_callback(ask)

        for _ in range(IN_FLIGHT):
            ask()
        yield enough
        ended.set()


@pytest.mark.parametrize(
    "adapter", ["--fast-lane", pytest.param("--no-fast-lane", marks=pytest.mark.exhaustive)]
)
def test_the_highest_priority_of_one_caller_keeps_no_other_waiting(
    run_server: RunServer, slow_network: Network, note_fault: NoteFault, adapter: str
) -> None:
    highest = {"priority": pb.InferParameter(int64_param=1)}
    with run_server("--workers", "1", adapter) as server:
        load = SteadyLoad(server.address, slow_network)
        load.wait_for_answers()
        with flood(server.address, PASSES, parameters=highest) as enough:
            assert enough.wait(60)
            load.wait_for_answers(5)  # of which each may wait for a pass
        figures = load.stop()
        server.stop()
    note_fault(
        f"one caller keeps {IN_FLIGHT} batches of {ROWS:,} images of `priority: 1` waiting; "
        f"`{adapter}`",
        figures,
        "it orders its own requests only: each other caller has every second turn",
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
    assert figures.longest_s < MAX_WAIT_S
