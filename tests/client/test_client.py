"""Predictions over a real channel: what goes in, what comes out, and how it travels."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.client import (
    Client,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    Predictions,
    UnavailableError,
)
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2

WAIT_S = 20.0
CLASSES = 256


@pytest.fixture
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(8).integers(0, 256, (5, 2, 3), np.uint8)


@pytest.fixture
def roomy_server(models: Path, tiny_models: None) -> Iterator[Server]:
    """Return a server of the tiny model with the limits that users have."""
    running = Server(ServerConfig(models=models, port=0))
    running.start()
    yield running
    running.stop()


def expected_probabilities(model: Model, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return model.network.probabilities(model.metadata.input.scale(images))


def check(found: Predictions, model: Model, images: npt.NDArray[Any]) -> None:
    expected = expected_probabilities(model, images)
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.argmax(axis=1))


def first_values(
    request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
) -> prediction_pb2.PredictResponse:
    """Classify each image of bytes as its first one."""
    images = np.frombuffer(request.images.data, np.uint8).reshape(request.images.count, -1)
    return prediction_pb2.PredictResponse(
        model_name="first",
        model_version=request.model_version or 7,
        probabilities=np.eye(CLASSES, dtype="<f4")[images[:, 0]].tobytes(),
        labels=images[:, 0].astype("<i4").tobytes(),
    )


@pytest.mark.parametrize("shape", [(5, 6), (5, 2, 3), (5, 1, 6, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_answer_is_what_the_network_says_in_process_bit_for_bit(
    client: Client, model: Model, images: npt.NDArray[np.uint8], dtype: str, shape: tuple[int, ...]
) -> None:
    sent = images if dtype == "uint8" else (images / 255).astype(np.float32)
    found = client.predict(sent.reshape(shape))
    check(found, model, sent)
    assert found.labels.dtype == np.int32
    assert found.probabilities.dtype == np.float32
    assert (found.model_name, found.model_version, len(found)) == ("tiny", 2, 5)


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", ">f8", "longdouble"])
def test_floats_of_every_kind_are_sent_as_float32(
    client: Client, model: Model, images: npt.NDArray[np.uint8], dtype: str
) -> None:
    sent = (images / 255).astype(dtype)
    check(client.predict(sent), model, sent.astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "arrange",
    [
        np.asfortranarray,
        lambda images: np.repeat(images, 2, axis=0)[::2],
        lambda images: images[::-1, ::-1, ::-1],
        lambda images: np.moveaxis(np.ascontiguousarray(np.moveaxis(images, 0, -1)), -1, 0),
    ],
    ids=["fortran", "every-second", "reversed", "images-last"],
)
def test_the_order_in_memory_does_not_matter(
    client: Client,
    model: Model,
    images: npt.NDArray[np.uint8],
    dtype: str,
    arrange: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
) -> None:
    arranged = arrange((images / 255).astype(np.float32) if dtype == "float32" else images)
    assert not arranged.flags.c_contiguous
    check(client.predict(arranged), model, np.ascontiguousarray(arranged))


def test_lists_of_floats_will_do(client: Client, model: Model) -> None:
    sent = [[0.0, 0.25, 0.5, 0.75, 1.0, 0.1], [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]]
    check(client.predict(sent), model, np.array(sent, np.float32))


def test_the_callers_array_is_left_as_it_is(client: Client, images: npt.NDArray[np.uint8]) -> None:
    sent = images / 255
    before = sent.copy()
    sent.setflags(write=False)
    client.predict(sent)
    np.testing.assert_array_equal(sent, before)


def test_a_model_and_a_version_can_be_pinned(client: Client, images: npt.NDArray[np.uint8]) -> None:
    found = client.predict(images, model="tiny", version=1)
    assert (found.model_name, found.model_version) == ("tiny", 1)


def test_many_images_come_back_in_their_order(roomy_server: Server, model: Model) -> None:
    images = np.random.default_rng(2).integers(0, 256, (20_000, 2, 3), np.uint8)
    with Client(roomy_server.address) as client:
        found = client.predict(images)
    expected = expected_probabilities(model, images)
    assert set(expected.argmax(axis=1)) == {0, 1, 2}
    assert found.probabilities.shape == (20_000, 3)
    # Not bit for bit: how BLAS sums may depend on the number of rows.
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.labels, expected.argmax(axis=1))
    assert (found.model_name, found.model_version) == ("tiny", 2)


def test_all_parts_of_a_large_call_are_asked_of_the_version_that_answered_first(
    serve: Callable[..., str],
) -> None:
    asked: list[tuple[int, int]] = []

    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        asked.append((request.images.count, request.model_version))
        return first_values(request, context)

    images = (np.arange(20_000) // 100).astype(np.uint8).reshape(-1, 1)
    with Client(serve(Predict=predict)) as client:
        found = client.predict(images)
    assert sum(count for count, _ in asked) == 20_000
    assert asked[0][1] == 0
    assert {version for _, version in asked[1:]} == {7}
    assert found.model_version == 7
    np.testing.assert_array_equal(found.labels, images[:, 0])


def test_large_images_are_split_so_that_each_request_passes_grpcs_default_limit(
    serve: Callable[..., str],
) -> None:
    sizes: list[int] = []

    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        sizes.append(request.ByteSize())
        return first_values(request, context)

    images = np.zeros((50, 512, 512), np.uint8)
    images[:, 0, 0] = np.arange(50)
    with Client(serve(Predict=predict)) as client:
        found = client.predict(images)
    assert found.labels.tolist() == list(range(50))
    assert 1 < len(sizes) < 10
    assert max(sizes) < 4 * 1024 * 1024


def test_an_image_that_the_transport_refuses_is_an_invalid_request(
    serve: Callable[..., str],
) -> None:
    with (
        Client(serve(Predict=first_values)) as client,
        pytest.raises(InvalidRequestError, match="RESOURCE_EXHAUSTED: .*larger than max"),
    ):
        client.predict(np.zeros((1, 5 * 1024 * 1024), np.uint8))


def test_many_threads_share_a_client_and_each_gets_its_own_rows(
    client: Client, model: Model
) -> None:
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        start.wait(WAIT_S)
        for _ in range(20):
            images = rng.integers(0, 256, (int(rng.integers(1, 64)), 6), np.uint8)
            check(client.predict(images), model, images)

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, seed) for seed in range(8)]:
            done.result()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 5), np.uint8), "images.data: expected 12 bytes"),
        (np.zeros((2, 28, 28), np.float32), "images.data: expected 48 bytes"),
        (np.zeros((65, 6), np.uint8), "images.count: expected from 1 to 64 images a request"),
        (np.full((1, 6), np.nan), "expected float32 values from 0 to 1, got NaN"),
        (np.full((1, 6), 255.0), "values up to 255 are sent as uint8, or divided by 255"),
        # Not float32: it becomes infinite on the way, without a warning.
        (np.full((1, 6), 1e300), "expected float32 values from 0 to 1, got inf"),
    ],
    ids=["width", "shape", "count", "nan", "range", "infinite"],
)
def test_images_that_the_server_refuses_are_refused_in_its_words(
    server: Server, client: Client, images: npt.NDArray[Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.predict(images)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{server.address}: INVALID_ARGUMENT: ")
    with pytest.raises(InvalidRequestError, match="INVALID_ARGUMENT"):
        list(client.predict_stream([images]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "huge"}, "no model 'huge' is served"),
        ({"version": 9}, "version 9 of model 'tiny' is not"),
    ],
    ids=str,
)
def test_what_is_not_served_is_not_found(
    client: Client, images: npt.NDArray[np.uint8], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotFoundError, match=message):
        client.predict(images, **arguments)
    with pytest.raises(NotFoundError, match=message):
        list(client.predict_stream([images], **arguments))
    named = {"name" if key == "model" else key: value for key, value in arguments.items()}
    with pytest.raises(NotFoundError, match=message):
        client.model(**named)


def test_a_model_must_be_named_where_several_are_served(
    models: Path, publish: Callable[..., None], images: npt.NDArray[np.uint8]
) -> None:
    publish("cats", versions=1)
    publish("dogs", versions=1)
    server = Server(ServerConfig(models=models, port=0))
    server.start()
    with Client(server.address) as client:
        with pytest.raises(InvalidRequestError, match="model_name: required, .*: cats, dogs"):
            client.predict(images)
        assert client.predict(images, model="dogs").model_name == "dogs"
    server.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"version": -1},
            "version: expected a positive number, or 0 for none in particular",
        ),
        ({"version": 2**63}, "version: expected a positive number, or 0"),
        ({"timeout_s": 0}, "timeout_s: expected seconds above 0, got 0"),
        ({"timeout_s": -1}, "timeout_s: expected seconds above 0, got -1"),
        ({"timeout_s": float("nan")}, "timeout_s: expected seconds above 0, got nan"),
        ({"timeout_s": float("inf")}, "timeout_s: expected at most 1000000000 seconds, got inf"),
    ],
    ids=str,
)
def test_an_argument_out_of_its_range_is_refused_by_name(
    client: Client, images: npt.NDArray[np.uint8], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        client.predict(images, **arguments)
    with pytest.raises(InvalidRequestError, match=message):
        list(client.predict_stream([images], **arguments))
    with pytest.raises(InvalidRequestError, match=message):
        client.model(**arguments)


def test_a_year_is_not_too_long_a_timeout(client: Client, images: npt.NDArray[np.uint8]) -> None:
    assert len(client.predict(images, timeout_s=365 * 24 * 3600.0)) == 5


def test_a_client_is_made_with_a_target_and_a_sound_timeout() -> None:
    with pytest.raises(InvalidRequestError, match="target: expected HOST:PORT"):
        Client("")
    with pytest.raises(InvalidRequestError, match="timeout_s: expected seconds above 0"):
        Client("localhost:1", timeout_s=0)


def test_a_closed_client_says_that_it_is_closed(
    server: Server, images: npt.NDArray[np.uint8]
) -> None:
    with Client(server.address) as client:
        client.predict(images)
        left_open = client.predict_stream([images])
    calls: list[Callable[[], object]] = [
        lambda: client.predict(images),
        lambda: next(left_open),
        lambda: list(client.predict_stream([images])),
        client.model,
        client.models,
    ]
    for call in calls:
        with pytest.raises(ClientError, match=f"{server.address}: the client is closed"):
            call()
    client.close()


@pytest.mark.parametrize("answered", [0, 1], ids=["first-request", "second-request"])
def test_a_call_that_is_under_way_when_the_client_is_closed_ends_with_an_error_that_says_so(
    serve: Callable[..., str], answered: int
) -> None:
    entered, ended = threading.Event(), threading.Event()
    counts: list[int] = []

    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        counts.append(request.images.count)
        if len(counts) > answered:
            entered.set()
            ended.wait(WAIT_S)
        return first_values(request, context)

    client = Client(serve(Predict=predict))
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.predict, np.zeros((5000, 1), np.uint8))
        assert entered.wait(WAIT_S)
        client.close()
        error = call.exception(WAIT_S)
    ended.set()
    assert type(error) is ClientError
    assert "the client was closed meanwhile" in str(error)


def test_each_client_has_a_connection_of_its_own(serve: Callable[..., str]) -> None:
    peers = []

    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        peers.append(context.peer())
        return first_values(request, context)

    address = serve(Predict=predict)
    with Client(address) as first, Client(address) as second:
        for client in (first, second, first, second):
            client.predict(np.zeros((1, 1), np.uint8))
    assert peers[:2] == peers[2:]
    assert peers[0] != peers[1]


def test_calls_go_round_all_servers_of_the_target(
    tmp_path: Path, model: Model, images: npt.NDArray[np.uint8]
) -> None:
    servers = []
    for count in (1, 2):
        for _ in range(count):
            publish_model(tmp_path / f"models-{count}", model)
        servers.append(Server(ServerConfig(models=tmp_path / f"models-{count}", port=0)))
        servers[-1].start()
    addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    with Client(f"ipv4:{addresses}") as client:
        seen: list[int] = []
        # At first only one may be connected; from then on they take turns.
        while len(set(seen)) < 2 and len(seen) < 1000:
            seen.append(client.predict(images).model_version)
        turns = [client.predict(images).model_version for _ in range(20)]
        servers[0].stop()
        # Whoever is left answers, with nothing for the caller to do.
        rest = [client.predict(images).model_version for _ in range(5)]
        servers[1].stop()
        with pytest.raises(UnavailableError):
            client.predict(images)
    assert sorted(turns) == [1] * 10 + [2] * 10
    assert rest == [2] * 5
