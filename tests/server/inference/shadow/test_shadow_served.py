"""Servers whose canary classifies what their default version has answered."""

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.compiled import CompiledModel, Images, Workspace
from mlpserve.model.labels import set_label
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.server.errors import StartError
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from processes import connections, suspend

TIMEOUT_S = 60.0
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
Rows = npt.NDArray[np.uint8]


def labels(model: CompiledModel, rows: Images) -> npt.NDArray[np.int32]:
    return model.classify([rows], Workspace()).labels.copy()


def label_another_network(models: Path, other_model: Model) -> None:
    """Publish another network as version 3, the canary; version 1 is stable."""
    publish_model(models, other_model)
    set_label(models, "tiny", "stable", 1)
    set_label(models, "tiny", "canary", 3)


@pytest.fixture
def shadowed_server(
    models: Path, other_model: Model, start_server: Callable[..., Server], tiny_models: None
) -> Server:
    """Return a server whose canary, version 3, is another network than version 1, its default."""
    label_another_network(models, other_model)
    return start_server(shadow="canary")


@pytest.fixture
def labelled(models: Path, other_model: Model, tiny_models: None) -> None:
    label_another_network(models, other_model)


def request(images: Rows, version: int = 0) -> prediction_pb2.PredictRequest:
    return prediction_pb2.PredictRequest(
        model_version=version,
        images=prediction_pb2.ImageBatch(
            count=len(images), data_type=prediction_pb2.DATA_TYPE_UINT8, data=images.tobytes()
        ),
    )


def test_a_server_tells_how_its_shadow_does_and_answers_as_without(
    shadowed_server: Server, rows: Rows, stable: CompiledModel, canary: CompiledModel
) -> None:
    with grpc.insecure_channel(f"localhost:{shadowed_server.port}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for row in range(0, 300, 3):
            response = stub.Predict(request(rows[row : row + 3]), timeout=TIMEOUT_S)
            pinned = stub.Predict(request(rows[row : row + 3], version=1), timeout=TIMEOUT_S)
            assert response == pinned
        batch = prediction_pb2.PredictStreamRequest(images=request(rows).images)
        (streamed,) = stub.PredictStream(iter([batch]), timeout=TIMEOUT_S)
        assert np.array_equal(np.frombuffer(streamed.labels, "<i4"), labels(stable, rows))
        shadow = until_compared(stub, 900)
    agreeing = np.count_nonzero(labels(stable, rows) == labels(canary, rows))
    assert (shadow.label, shadow.version) == ("canary", 3)
    assert (shadow.dropped_images, shadow.failed_images) == (0, 0)
    assert shadow.agreeing_images == 3 * agreeing
    assert {
        agrees: rows
        for (_, _, agrees), rows in shadowed_server.metrics("")["mlpserve_shadow_rows_total"]
    } == {"true": 3 * agreeing, "false": 900 - 3 * agreeing}


def until_compared(
    stub: prediction_pb2_grpc.PredictionServiceStub, images: int
) -> prediction_pb2.Shadow:
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        listed = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
        if listed.models[0].shadow.compared_images == images:
            return listed.models[0].shadow
        assert time.monotonic() < deadline_s, listed.models[0].shadow


def test_without_a_shadow_nothing_is_told_of_one(server: Server) -> None:
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(request(np.zeros((1, 6), np.uint8)), timeout=TIMEOUT_S)
        listed = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
    assert not listed.models[0].HasField("shadow")


def test_what_is_no_label_cannot_be_a_shadow(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="shadow: expected a label, got '7'"):
        ServerConfig(models=tmp_path, shadow="7")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_all_workers_count_together_and_the_counts_of_a_dead_one_stay(
    models: Path,
    other_model: Model,
    tiny_models: None,
    run_server: Callable[..., AbstractContextManager[Any]],
    rows: Rows,
) -> None:
    label_another_network(models, other_model)
    with run_server("--workers", "2", "--shadow", "canary") as running:
        ask(running.address, rows, connections=8)
        until_listed(running.address, 8 * 300)
        os.kill(running.workers()[0], signal.SIGKILL)
        running.wait_for_line("worker")
        ask(running.address, rows, connections=4)
        until_listed(running.address, 12 * 300)
        running.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
# One after another, 17 questions would take over 17 s and 85 s.
@pytest.mark.parametrize(
    ("hanging", "within_s"),
    [pytest.param("a worker", 12, marks=pytest.mark.exhaustive), ("the supervisor", 25)],
)
def test_whoever_hangs_keeps_nobody_from_what_was_last_counted(
    labelled: None,
    run_server: Callable[..., AbstractContextManager[Any]],
    rows: Rows,
    hanging: str,
    within_s: int,
) -> None:
    with run_server("--workers", "2", "--shadow", "canary") as running:
        # Over one connection, which one of the workers has.
        with grpc.insecure_channel(running.address, options=OWN_CONNECTION) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            stub.Predict(request(rows), timeout=TIMEOUT_S, wait_for_ready=True)
            until_compared(stub, 300)
            hung = running.process.pid
            if hanging == "a worker":
                (hung,) = (w for w in running.workers() if not connections(w, running.port))
            suspend(hung)
            try:
                started_s = time.monotonic()
                assert until_compared(stub, 300).version == 3
                with ThreadPoolExecutor(16) as asking:
                    list(asking.map(until_compared, [stub] * 16, [300] * 16))
                assert time.monotonic() - started_s < within_s
            finally:
                os.kill(hung, signal.SIGCONT)
        running.stop()


@pytest.mark.exhaustive
def test_one_worker_logs_what_all_have_counted(
    models: Path,
    other_model: Model,
    tiny_models: None,
    run_server: Callable[..., AbstractContextManager[Any]],
    rows: Rows,
) -> None:
    label_another_network(models, other_model)
    with run_server("--workers", "2", "--shadow", "canary") as running:
        ask(running.address, rows, connections=8)
        until_listed(running.address, 8 * 300)
        running.stop()
    (line,) = [line for line in running.lines if "shadow" in line]
    assert "shadow tiny canary (version 3 beside 1): of 2400 images, " in line


def ask(address: str, rows: Rows, *, connections: int) -> None:
    for _ in range(connections):
        with grpc.insecure_channel(address, options=OWN_CONNECTION) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            stub.Predict(request(rows), timeout=TIMEOUT_S, wait_for_ready=True)


def until_listed(address: str, images: int) -> None:
    with grpc.insecure_channel(address) as channel:
        until_compared(prediction_pb2_grpc.PredictionServiceStub(channel), images)


def test_a_slow_shadow_keeps_no_answer_back_and_not_the_end_of_the_server_either(
    models: Path, model: Model, tiny_models: None, start_server: Callable[..., Server], rows: Rows
) -> None:
    publish_model(models, wide(model))
    set_label(models, "tiny", "stable", 1)
    set_label(models, "tiny", "canary", 3)
    server = start_server(shadow="canary")
    expected = labels(CompiledModel(model), rows)
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(50):
            response = stub.Predict(request(rows), timeout=TIMEOUT_S)
            assert response.model_version == 1
            assert np.array_equal(np.frombuffer(response.labels, "<i4"), expected)
        listed = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
    assert listed.models[0].shadow.compared_images < 50 * 300
    server.stop()


def wide(model: Model) -> Model:
    """Return a network that takes some seconds for as many images as others take milliseconds."""
    rng, width = np.random.default_rng(11), 2000

    def layer(fan_in: int, fan_out: int, activation: str) -> Layer:
        weights = (rng.normal(size=(fan_in, fan_out)) / fan_in).astype(np.float32)
        return Layer(weights, np.zeros(fan_out, np.float32), activation)

    layers = (layer(6, width, "tanh"), layer(width, width, "tanh"), layer(width, 3, "softmax"))
    sizes, activations = (6, width, width, 3), ("tanh", "tanh", "softmax")
    metadata = replace(model.metadata, layer_sizes=sizes, activations=activations)
    return Model(Network(layers), metadata)
