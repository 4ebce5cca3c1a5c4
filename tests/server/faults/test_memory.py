"""Memory runs out: what does not fit is refused, and who asks for less goes on.

The limit is that of the address space, which any process may be given; a process that reaches the
limit of its control group is killed instead, and then replaced as any that is killed.
"""

import re
import resource
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import pytest

from fault_table import NoteFault
from mlpserve.model.digests import DIGEST_FILE_NAME
from mlpserve.model.folder import weights_path
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.v1 import prediction_pb2_grpc
from steady_load import REQUEST, SteadyLoad

RunServer = Callable[..., AbstractContextManager[Any]]

TIMEOUT_S = 60.0
WIDTH = 40_000  # of a hidden layer: 80 MB for the 512 images that are computed at once
ROOM_BYTES = 24 << 20
ASKED: Final = 20


@pytest.fixture
def publish_wide(models: Path, model: Model) -> Callable[[], object]:
    """Return what publishes a version of few weights that takes much memory to run."""
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(6, WIDTH)).astype(np.float32)
    output = rng.normal(size=(WIDTH, 3)).astype(np.float32) / 100
    network = Network(
        (
            Layer(hidden, np.zeros(WIDTH, np.float32), "tanh"),
            Layer(output, np.zeros(3, np.float32), "softmax"),
        )
    )
    metadata = replace(model.metadata, layer_sizes=(6, WIDTH, 3))
    return lambda: publish_model(models, Model(network, metadata))


@contextmanager
def memory_limit(processes: Sequence[int]) -> Iterator[None]:
    """Give processes not much more memory for a while than they have."""
    before = {process: resource.prlimit(process, resource.RLIMIT_AS) for process in processes}
    for process, (_, hard) in before.items():
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
        max_bytes = pages * resource.getpagesize() + ROOM_BYTES
        resource.prlimit(process, resource.RLIMIT_AS, (max_bytes, hard))
    yield
    for process, limit in before.items():
        resource.prlimit(process, resource.RLIMIT_AS, limit)


def ask_wide(address: str) -> list[tuple[str, str]]:
    """Return the status and message of some calls to the model that takes much memory."""
    request = type(REQUEST)(images=REQUEST.images, model_version=1)
    found = []
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(ASKED):
            call = stub.Predict.future(request, timeout=TIMEOUT_S)
            call.exception()
            found.append((call.code().name, call.details()))
    return found


@pytest.mark.parametrize(
    "adapter", ["--fast-lane", pytest.param("--no-fast-lane", marks=pytest.mark.exhaustive)]
)
def test_a_request_for_which_there_is_no_memory_is_refused_and_others_are_answered(
    run_server: RunServer,
    publish: Callable[..., None],
    publish_wide: Callable[[], object],
    network: Network,
    note_fault: NoteFault,
    *,
    adapter: str,
) -> None:
    publish_wide()
    publish("tiny", versions=1)
    with run_server("--workers", "1", adapter) as server:
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        with memory_limit([server.process.pid]):
            refused = ask_wide(server.address)
            load.wait_for_answers()
        answered = ask_wide(server.address)
        figures = load.stop()
        server.stop()
    note_fault(
        f"no memory for {ASKED} requests to a model that takes much; `{adapter}`",
        figures,
        "each is refused: UNAVAILABLE; answered when there is memory again",
    )
    assert {code for code, _ in refused} == {"UNAVAILABLE"}, refused
    assert all("not enough memory left for this request" in said for _, said in refused)
    assert {code for code, _ in answered} == {"OK"}, answered
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors


@pytest.mark.exhaustive
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_version_for_which_there_is_no_memory_is_loaded_when_there_is(
    run_server: RunServer,
    publish: Callable[..., None],
    publish_wide: Callable[[], object],
    network: Network,
    note_fault: NoteFault,
    *,
    workers: str,
) -> None:
    publish("tiny", versions=1)
    with run_server("--workers", workers) as server:
        processes = server.workers() or [server.process.pid]
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        with memory_limit(processes):
            publish_wide()
            server.wait_for_line("not enough memory left to load it; it is tried again")
            load.wait_for_answers()
            figures = load.stop()
        server.wait_for_line("changed: serving tiny version 2 and 1")
        assert (server.workers() or [server.process.pid]) == processes
        server.stop()
    note_fault(
        f"no memory for a new version; {workers} worker(s)",
        figures,
        "it waits, what was served is served; loaded as soon as there is memory",
    )
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors


def replace_in_place(path: Path) -> None:
    """Replace the weights of a version by others that are as good."""
    with np.load(path) as file:
        arrays = dict(file)
    arrays["b2"] = arrays["b2"] + np.float32(0.5)
    path.with_name(DIGEST_FILE_NAME).unlink()
    np.savez(path, **arrays)


def generation(server: Any) -> float:
    """Return the number of the latest plan, which grows with each attempt to serve something."""
    page = next(found[0] for line in server.lines if (found := re.search(r"http://\S+", line)))
    with urllib.request.urlopen(page, timeout=TIMEOUT_S) as response:  # noqa: S310 - our own
        (value,) = re.findall(
            r"^mlpserve_generation (\S+)$", response.read().decode(), re.MULTILINE
        )
    return float(value)


@pytest.mark.exhaustive
def test_weights_replaced_in_place_for_which_there_is_no_memory_are_tried_once_a_look(
    run_server: RunServer,
    models: Path,
    publish: Callable[..., None],
    publish_wide: Callable[[], object],
    network: Network,
    *,
    note_fault: NoteFault,
) -> None:
    publish_wide()
    publish("tiny", versions=1)
    with run_server("--workers", "2", "--metrics-port", "0") as server:
        load = SteadyLoad(server.address, network)
        load.wait_for_answers()
        with memory_limit(server.workers()):
            replace_in_place(weights_path(models, "tiny", 1))
            server.wait_for_line("tiny version 1 goes on being served as it was loaded")
            before = generation(server)
            for _ in range(20):
                load.wait_for_answers()
            attempts = generation(server) - before
        figures = load.stop()
        server.stop()
    note_fault(
        "weights replaced in place, and no memory to load them; 2 workers",
        figures,
        "tried once a look; what was loaded goes on being served",
    )
    assert attempts < 20
    assert (figures.failed, figures.wrong, figures.lost) == (0, 0, 0), load.errors
