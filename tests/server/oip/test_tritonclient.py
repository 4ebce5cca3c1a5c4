"""Unmodified tritonclient calls us: over gRPC and HTTP, from threads and asyncio."""

import asyncio
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.client import Client
from mlpserve.model.weights import Model
from mlpserve.server.server import Server

REASON = "tritonclient is part of the development environment only"
triton_grpc = pytest.importorskip("tritonclient.grpc", reason=REASON)
triton_grpc_aio = pytest.importorskip("tritonclient.grpc.aio", reason=REASON)
triton_http = pytest.importorskip("tritonclient.http", reason=REASON)
triton_http_aio = pytest.importorskip("tritonclient.http.aio", reason=REASON)
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

TIMEOUT_S = 60.0
Images = npt.NDArray[np.uint8]


@pytest.fixture
def over_grpc(server: Server) -> Iterator[Any]:
    with triton_grpc.InferenceServerClient(server.address) as client:
        yield client


@pytest.fixture
def over_http(http_address: str) -> Iterator[Any]:
    with triton_http.InferenceServerClient(http_address) as client:
        yield client


@pytest.fixture(params=["gRPC", "HTTP"])
def transport(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[Any, Any]]:
    """Return the module of a transport, and a client of it."""
    module = triton_grpc if request.param == "gRPC" else triton_http
    assert server.http is not None
    address = server.address if module is triton_grpc else f"127.0.0.1:{server.http.port}"
    with module.InferenceServerClient(address) as client:
        yield module, client


def tensor(module: Any, images: npt.NDArray[Any], datatype: str = "UINT8", **how: Any) -> Any:
    asked = module.InferInput("images", list(images.shape), datatype)
    asked.set_data_from_numpy(images, **how)
    return asked


def expected(model: Model, images: Images) -> npt.NDArray[Any]:
    return model.network.probabilities(model.metadata.input.scale(images))


def test_arrays_come_back_as_arrays(
    transport: tuple[Any, Any], model: Model, images: Images
) -> None:
    module, client = transport
    result = client.infer("tiny", [tensor(module, images)], request_id="seven")
    found = result.as_numpy("probabilities")
    np.testing.assert_allclose(found, expected(model, images), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(result.as_numpy("labels"), found.argmax(axis=1))
    floats = (images / 255).astype(np.float32)
    same = client.infer("tiny", [tensor(module, floats, "FP32")]).as_numpy("labels")
    np.testing.assert_array_equal(same, found.argmax(axis=1))


def test_every_transport_gives_the_same_bits(
    server: Server, over_grpc: Any, over_http: Any, images: Images
) -> None:
    floats = (images / 255).astype(np.float32)
    with Client(server.address) as client:
        plain = client.predict(floats)
        (streamed,) = client.predict_stream([floats])
    answers = [
        over_grpc.infer("tiny", [tensor(triton_grpc, floats, "FP32")]),
        over_http.infer("tiny", [tensor(triton_http, floats, "FP32", binary_data=True)]),
        over_http.infer(
            "tiny",
            [tensor(triton_http, floats, "FP32", binary_data=False)],
            outputs=[
                triton_http.InferRequestedOutput(name, binary_data=False)
                for name in ("probabilities", "labels")
            ],
        ),
    ]
    assert streamed.probabilities.tobytes() == plain.probabilities.tobytes()
    for answer in answers:
        assert answer.as_numpy("probabilities").tobytes() == plain.probabilities.tobytes()
        np.testing.assert_array_equal(answer.as_numpy("labels"), plain.labels)


def test_classification_gives_values_indices_and_labels(
    transport: tuple[Any, Any], model: Model, images: Images
) -> None:
    module, client = transport
    asked = module.InferRequestedOutput("probabilities", class_count=2)
    found = client.infer("tiny", [tensor(module, images)], outputs=[asked])
    rows = found.as_numpy("probabilities")
    assert rows.shape == (5, 2)
    for row, best in zip(rows, expected(model, images).argmax(axis=1), strict=True):
        value, index, label = row[0].decode().split(":")
        assert (int(index), label) == (best, model.metadata.class_labels[best])
        assert float(value) >= float(row[1].decode().split(":")[0])


def test_the_server_and_its_models_describe_themselves(over_grpc: Any, over_http: Any) -> None:
    for client, options in ((over_grpc, {"as_json": True}), (over_http, {})):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("huge")
        assert not client.is_model_ready("tiny", "7")
        assert client.get_server_metadata(**options)["name"] == "mlpserve"
        metadata = client.get_model_metadata("tiny", **options)
        assert metadata["versions"] == ["2", "1"]
        assert [each["name"] for each in metadata["inputs"]] == ["images"]
        assert [each["datatype"] for each in metadata["outputs"]] == ["FP32", "INT32", "FP32"]
    config = over_grpc.get_model_config("tiny").config
    assert (config.max_batch_size, list(config.input[0].dims)) == (64, [6])
    assert list(over_http.get_model_config("tiny")["output"][0]["dims"]) == [3]


def test_advertised_is_what_is_implemented(over_grpc: Any, over_http: Any) -> None:
    implemented = [
        "classification",
        "model_configuration",
        "model_repository",
        "schedule_policy",
        "statistics",
    ]
    assert list(over_grpc.get_server_metadata().extensions) == implemented
    over_both = [*implemented, "binary_tensor_data"]
    assert over_http.get_server_metadata()["extensions"] == over_both


def test_statistics_are_true(over_grpc: Any, over_http: Any, images: Images) -> None:
    for _ in range(3):
        over_grpc.infer("tiny", [tensor(triton_grpc, images)])
    over_http.infer("tiny", [tensor(triton_http, images[:2])])
    for shape in ([5, 7], [0, 6]):
        wrong = triton_grpc.InferInput("images", shape, "UINT8")
        with pytest.raises(InferenceServerException):
            over_grpc.infer("tiny", [wrong])
    newest, older = over_grpc.get_inference_statistics("tiny").model_stats
    assert (newest.version, newest.inference_count, newest.execution_count) == ("2", 17, 4)
    assert (newest.inference_stats.success.count, newest.inference_stats.fail.count) == (4, 2)
    sizes = {each.batch_size: each.compute_infer.count for each in newest.batch_stats}
    assert sizes == {2: 1, 5: 3}
    parts = newest.inference_stats
    known = parts.queue.ns + parts.compute_input.ns + parts.compute_infer.ns
    assert known + parts.compute_output.ns == parts.success.ns
    assert older.inference_count == older.last_inference == 0
    (same, _) = over_http.get_inference_statistics("tiny")["model_stats"]
    assert same["inference_stats"]["success"]["count"] == 4


def test_the_repository_lists_its_models_and_loads_none_unless_allowed(
    over_grpc: Any, over_http: Any
) -> None:
    listed = [
        {"name": "tiny", "version": version, "state": "READY", "reason": ""}
        for version in ("2", "1")
    ]
    assert over_http.get_model_repository_index() == listed
    index = over_grpc.get_model_repository_index().models
    assert [(each.name, each.version, each.state) for each in index] == [
        ("tiny", "2", "READY"),
        ("tiny", "1", "READY"),
    ]
    for client, status in ((over_grpc, "StatusCode.UNAVAILABLE"), (over_http, "503")):
        for change in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException) as caught:
                change("tiny")
            assert caught.value.status() == status
            assert "explicit model load / unload is not allowed" in caught.value.message()


def test_errors_are_those_that_the_client_knows(transport: tuple[Any, Any]) -> None:
    module, client = transport
    for model, version, shape, grpc_status, http_status in (
        ("huge", "", [5, 6], "StatusCode.NOT_FOUND", "404"),
        ("tiny", "7", [5, 6], "StatusCode.NOT_FOUND", "404"),
        ("tiny", "", [5, 7], "StatusCode.INVALID_ARGUMENT", "400"),
    ):
        asked = tensor(module, np.zeros(shape, np.uint8))
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, [asked], model_version=version)
        assert caught.value.status() == (grpc_status if module is triton_grpc else http_status)


def test_compressed_requests_are_answered(transport: tuple[Any, Any], images: Images) -> None:
    module, client = transport
    name = "compression_algorithm" if module is triton_grpc else "request_compression_algorithm"
    for algorithm in ("gzip", "deflate"):
        found = client.infer("tiny", [tensor(module, images)], **{name: algorithm})
        assert found.as_numpy("labels").shape == (5,)


def test_a_stream_answers_each_request_and_goes_on_after_an_error(
    over_grpc: Any, model: Model, images: Images
) -> None:
    came: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    over_grpc.start_stream(lambda result, error: came.put((result, error)))
    for number, asked in enumerate((images, images[:, :, :2], images[:2])):
        over_grpc.async_stream_infer("tiny", [tensor(triton_grpc, asked)], request_id=str(number))
    first, refused, last = (came.get(timeout=TIMEOUT_S) for _ in range(3))
    over_grpc.stop_stream()
    for (result, error), sent, request_id in ((first, images, "0"), (last, images[:2], "2")):
        assert error is None
        assert result.get_response().id == request_id
        found = result.as_numpy("probabilities")
        np.testing.assert_allclose(found, expected(model, sent), rtol=0, atol=1e-6)
    assert "unexpected shape for input 'images' for model 'tiny'" in str(refused[1])


def test_a_stream_that_asks_for_statuses_ends_with_one(over_grpc: Any, images: Images) -> None:
    came: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    over_grpc.start_stream(
        lambda result, error: came.put((result, error)), headers={"triton_grpc_error": "true"}
    )
    over_grpc.async_stream_infer("huge", [tensor(triton_grpc, images)])
    _, error = came.get(timeout=TIMEOUT_S)
    assert error.status() == "StatusCode.NOT_FOUND"
    over_grpc.stop_stream()


def test_asyncio_clients_are_answered(server: Server, http_address: str, images: Images) -> None:
    async def labels(module: Any, aio: Any, address: str) -> Any:
        async with aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            asked = [client.infer("tiny", [tensor(module, images)]) for _ in range(20)]
            return [found.as_numpy("labels") for found in await asyncio.gather(*asked)]

    with Client(server.address) as client:
        right = client.predict(images).labels
    for found in (
        asyncio.run(labels(triton_grpc, triton_grpc_aio, server.address)),
        asyncio.run(labels(triton_http, triton_http_aio, http_address)),
    ):
        assert len(found) == 20
        for each in found:
            np.testing.assert_array_equal(each, right)


def test_calls_without_waiting_are_answered(over_grpc: Any, images: Images) -> None:
    came: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    for _ in range(50):
        over_grpc.async_infer(
            "tiny",
            [tensor(triton_grpc, images)],
            callback=lambda result, error: came.put((result, error)),
            priority=1,
            timeout=10_000_000,
        )
    for _ in range(50):
        result, error = came.get(timeout=TIMEOUT_S)
        assert error is None
        assert result.as_numpy("labels").shape == (5,)
