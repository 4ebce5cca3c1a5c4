"""A second version that classifies what the default version has answered."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.labels import set_label
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.server.compiled import CompiledModel, Images, Workspace
from mlpserve.server.config import ServerConfig
from mlpserve.server.errors import StartError
from mlpserve.server.lifecycle.shadow import Shadow
from mlpserve.server.lifecycle.tallies import Counts, Pair, Tallies
from mlpserve.server.registry import Registry, ServedModel
from mlpserve.server.serving import Server
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 20.0
PAIR = Pair("tiny", 1, 2)
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
Rows = npt.NDArray[np.uint8]


def other_network() -> Network:
    """Return a network of the tiny model's shape that often disagrees with it."""
    rng = np.random.default_rng(5)

    def layer(fan_in: int, fan_out: int, activation: str) -> Layer:
        weights = rng.normal(size=(fan_in, fan_out)).astype(np.float32)
        return Layer(weights, rng.normal(size=fan_out).astype(np.float32), activation)

    return Network((layer(6, 4, "tanh"), layer(4, 3, "softmax")))


def compiled(model: Model, version: int, **changes: Any) -> CompiledModel:
    return CompiledModel(
        replace(model, metadata=replace(model.metadata, version=version, **changes))
    )


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Return (300, 6) random images."""
    return np.random.default_rng(9).integers(0, 256, (300, 6), np.uint8)


@pytest.fixture
def stable(model: Model) -> CompiledModel:
    return compiled(model, 1)


@pytest.fixture
def canary(model: Model) -> CompiledModel:
    return compiled(replace(model, network=other_network()), 2)


@dataclass(frozen=True)
class Fixed:
    """What is served, and stays."""

    current: Registry


def served(stable: CompiledModel, canary: CompiledModel) -> Fixed:
    model = ServedModel((canary, stable), {"canary": 2}, default_version=1)
    return Fixed(Registry({"tiny": model}))


def labels(model: CompiledModel, rows: Images) -> npt.NDArray[np.int32]:
    return model.classify([rows], Workspace()).labels.copy()


def wait_for(tallies: Tallies, holds: Callable[[Counts], bool]) -> Counts:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds(counts := tallies.total(PAIR)):
        assert time.monotonic() < deadline_s, counts
    return counts


@pytest.fixture
def tallies() -> Tallies:
    return Tallies.alone()


@pytest.fixture
def run(tallies: Tallies) -> Iterator[Callable[..., Shadow]]:
    """Return a function that starts a shadow."""
    started: list[Shadow] = []

    def start(stable: CompiledModel, canary: CompiledModel, **options: Any) -> Shadow:
        shadow = Shadow(served(stable, canary), "canary", tallies, **options)
        shadow.start()
        started.append(shadow)
        return shadow

    yield start
    for shadow in started:
        shadow.stop()


def test_all_images_are_compared_in_batches_of_any_size_and_both_types(
    run: Callable[..., Shadow],
    tallies: Tallies,
    stable: CompiledModel,
    canary: CompiledModel,
    rows: Rows,
) -> None:
    shadow = run(stable, canary)
    expected = int(np.count_nonzero(labels(stable, rows) == labels(canary, rows)))
    assert 0 < expected < len(rows)
    cuts = [0, 1, 2, 5, 70, 71, 135, 136, 300]
    floats = (rows / np.float32(255)).astype(np.float32)
    for images in (rows, floats):
        batches = [images[start:end] for start, end in pairwise(cuts)]
        shadow.offer(stable, [(batch, labels(stable, batch).tobytes()) for batch in batches])
    counts = wait_for(tallies, lambda counts: counts.compared == 600)
    assert counts == Counts(compared=600, agreeing=2 * expected)


def test_what_another_version_answers_is_not_compared(
    run: Callable[..., Shadow],
    tallies: Tallies,
    stable: CompiledModel,
    canary: CompiledModel,
    rows: Rows,
) -> None:
    shadow = run(stable, canary)
    shadow.offer(canary, [(rows, labels(canary, rows).tobytes())])
    shadow.offer(stable, [(rows[:1], labels(stable, rows[:1]).tobytes())])
    assert wait_for(tallies, lambda counts: counts.compared > 0).compared == 1


def test_each_image_is_compared_or_dropped_and_the_queue_is_bounded(
    run: Callable[..., Shadow],
    tallies: Tallies,
    stable: CompiledModel,
    canary: CompiledModel,
    rows: Rows,
) -> None:
    shadow = run(stable, canary, max_queue_bytes=600)
    for _ in range(2000):
        shadow.offer(stable, [(rows[:50], bytes(200))])
    counts = wait_for(tallies, lambda counts: counts.compared + counts.dropped == 100_000)
    assert counts.dropped > 0
    assert counts.compared > 0


def test_a_batch_larger_than_the_queue_is_compared_where_nothing_waits(
    run: Callable[..., Shadow],
    tallies: Tallies,
    stable: CompiledModel,
    canary: CompiledModel,
    rows: Rows,
) -> None:
    shadow = run(stable, canary, max_queue_bytes=10)
    shadow.offer(stable, [(rows, labels(stable, rows).tobytes())])
    assert wait_for(tallies, lambda counts: counts.compared > 0).compared == 300


class Failing(CompiledModel):
    """A version that breaks whenever it is asked."""

    def classify(self, *_: object) -> Any:
        raise RuntimeError("broken")


def test_a_shadow_that_fails_is_counted_and_logged_once(
    run: Callable[..., Shadow],
    tallies: Tallies,
    model: Model,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stable = compiled(model, 1)
    broken = Failing(replace(model, metadata=replace(model.metadata, version=2)))
    shadow = run(stable, broken)
    for count in (100, 200):
        shadow.offer(stable, [(rows[:100], bytes(400))])
        wait_for(tallies, lambda counts, count=count: counts.failed == count)  # type: ignore[misc]
    assert tallies.total(PAIR) == Counts(failed=200)
    assert caplog.text.count("the shadow tiny canary (version 2 beside 1) cannot classify") == 1


def test_classes_are_compared_by_their_names(
    run: Callable[..., Shadow],
    tallies: Tallies,
    model: Model,
    stable: CompiledModel,
    rows: Rows,
) -> None:
    first, second, third = model.metadata.class_labels
    renamed = compiled(model, 2, class_labels=(second, first, third))
    shadow = run(stable, renamed)
    found = labels(stable, rows)
    shadow.offer(stable, [(rows, found.tobytes())])
    counts = wait_for(tallies, lambda counts: counts.compared == 300)
    assert counts.agreeing == np.count_nonzero(found == 2)


def test_versions_that_take_different_images_are_not_compared(
    tallies: Tallies, model: Model, stable: CompiledModel, rows: Rows
) -> None:
    wide = compiled(model, 2, input=replace(model.metadata.input, shape=(6,)))
    shadow = Shadow(served(stable, wide), "canary", tallies)
    shadow.offer(stable, [(rows, bytes(1200))])
    shadow.start()
    shadow.stop()
    assert tallies.total(PAIR) == Counts()


def label_another_network(models: Path, model: Model) -> None:
    """Publish another network as version 3, the canary; version 1 is stable."""
    publish_model(models, replace(model, network=other_network()))
    set_label(models, "tiny", "stable", 1)
    set_label(models, "tiny", "canary", 3)


@pytest.fixture
def shadowed_server(
    models: Path, model: Model, start_server: Callable[..., Server], tiny_models: None
) -> Server:
    """Return a server whose canary, version 3, is another network than version 1, its default."""
    label_another_network(models, model)
    return start_server(shadow="canary")


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
    model: Model,
    tiny_models: None,
    run_server: Callable[..., AbstractContextManager[Any]],
    rows: Rows,
) -> None:
    label_another_network(models, model)
    with run_server("--workers", "2", "--shadow", "canary") as running:
        ask(running.address, rows, connections=8)
        until_listed(running.address, 8 * 300)
        os.kill(running.workers()[0], signal.SIGKILL)
        running.wait_for_line("worker")
        ask(running.address, rows, connections=4)
        until_listed(running.address, 12 * 300)
        running.stop()


def test_one_worker_logs_what_all_have_counted(
    models: Path,
    model: Model,
    tiny_models: None,
    run_server: Callable[..., AbstractContextManager[Any]],
    rows: Rows,
) -> None:
    label_another_network(models, model)
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
    expected = labels(compiled(model, 1), rows)
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
