"""The server over a real channel, as any gRPC client sees it, on either adapter."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from mlpserve.model.weights import Model
from mlpserve.server.errors import StartError
from mlpserve.server.healthcheck import health_problem
from mlpserve.server.inference import registry
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

SERVICE = "mlpserve.v1.PredictionService"
TIMEOUT_S = 60.0


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> prediction_pb2_grpc.PredictionServiceStub:
    return prediction_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(8).integers(0, 256, (5, 2, 3), np.uint8)


def request(images: npt.NDArray[Any], **fields: Any) -> prediction_pb2.PredictRequest:
    data_type = prediction_pb2.DATA_TYPE_UINT8
    if images.dtype == np.float32:
        data_type = prediction_pb2.DATA_TYPE_FLOAT32
    batch = prediction_pb2.ImageBatch(count=len(images), data_type=data_type, data=images.tobytes())
    return prediction_pb2.PredictRequest(images=batch, **fields)


def stream_request(images: npt.NDArray[Any], **fields: Any) -> prediction_pb2.PredictStreamRequest:
    return prediction_pb2.PredictStreamRequest(images=request(images).images, **fields)


def expected_probabilities(model: Model, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return model.network.probabilities(model.metadata.input.scale(images))


def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_predict_answers_what_the_network_says_in_process(
    stub: prediction_pb2_grpc.PredictionServiceStub,
    model: Model,
    images: npt.NDArray[np.uint8],
    dtype: str,
) -> None:
    sent = images if dtype == "uint8" else (images / 255).astype(np.float32)
    response = stub.Predict(request(sent), timeout=TIMEOUT_S)
    expected = expected_probabilities(model, sent)
    found = np.frombuffer(response.probabilities, "<f4").reshape(5, 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.frombuffer(response.labels, "<i4"), expected.argmax(axis=1))
    assert (response.model_name, response.model_version) == ("tiny", 2)


@pytest.mark.parametrize("with_timings", [False, True])
def test_answers_are_written_as_libraries_write_them(
    channel: grpc.Channel, images: npt.NDArray[np.uint8], *, with_timings: bool
) -> None:
    call: Any = channel.unary_unary(f"/{SERVICE}/Predict")
    asked = request(images, with_timings=with_timings).SerializeToString()
    data = call(asked, timeout=TIMEOUT_S)
    response = prediction_pb2.PredictResponse.FromString(data)
    assert response.SerializeToString() == data
    assert response.HasField("timings") == with_timings


def test_what_a_network_says_has_the_same_fields_in_all_responses() -> None:
    kinds = prediction_pb2.PredictStreamResponse, prediction_pb2.ExplainResponse
    expected, *found = (
        [(field.name, field.number, field.type) for field in kind.DESCRIPTOR.fields][:5]
        for kind in (prediction_pb2.PredictResponse, *kinds)
    )
    assert [name for name, *_ in expected] == [
        "model_name",
        "model_version",
        "probabilities",
        "labels",
        "timings",
    ]
    assert found == [expected, expected]


def test_a_pinned_version_answers(
    stub: prediction_pb2_grpc.PredictionServiceStub, images: npt.NDArray[np.uint8]
) -> None:
    pinned = request(images, model_name="tiny", model_version=1)
    assert stub.Predict(pinned, timeout=TIMEOUT_S).model_version == 1


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"model_name": "huge"}, grpc.StatusCode.NOT_FOUND, "no model 'huge' is served"),
        ({"model_version": 7}, grpc.StatusCode.NOT_FOUND, "version 7 of model 'tiny'"),
        ({"model_version": -7}, grpc.StatusCode.INVALID_ARGUMENT, "model_version: expected"),
    ],
    ids=str,
)
def test_an_unknown_model_or_version_is_refused(
    stub: prediction_pb2_grpc.PredictionServiceStub,
    images: npt.NDArray[np.uint8],
    fields: dict[str, Any],
    code: grpc.StatusCode,
    message: str,
) -> None:
    found, details = failure(lambda: stub.Predict(request(images, **fields), timeout=TIMEOUT_S))
    assert found == code
    assert message in details
    get = prediction_pb2.GetModelRequest(**fields)
    assert failure(lambda: stub.GetModel(get, timeout=TIMEOUT_S))[0] == code


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (prediction_pb2.ImageBatch(), "images.data_type: expected DATA_TYPE_UINT8"),
        (prediction_pb2.ImageBatch(count=1, data_type=7), "images.data_type: expected"),  # type: ignore[arg-type]
        (prediction_pb2.ImageBatch(data_type=1), "images.count: expected from 1 to 64"),  # type: ignore[arg-type]
        (
            prediction_pb2.ImageBatch(count=65, data_type=1, data=bytes(65 * 6)),  # type: ignore[arg-type]
            "images.count: expected from 1 to 64 images a request, got 65",
        ),
        (
            prediction_pb2.ImageBatch(count=2**32 - 1, data_type=2),  # type: ignore[arg-type]
            "images.count: expected from 1 to 64 images a request, got 4294967295",
        ),
        (
            prediction_pb2.ImageBatch(count=1, data_type=1, data=b"123"),  # type: ignore[arg-type]
            "images.data: expected 6 bytes (1 images of 2 x 3 values, uint8), got 3",
        ),
    ],
)
def test_a_bad_batch_is_refused_by_the_name_of_its_field(
    stub: prediction_pb2_grpc.PredictionServiceStub, batch: prediction_pb2.ImageBatch, message: str
) -> None:
    bad = prediction_pb2.PredictRequest(images=batch)
    code, details = failure(lambda: stub.Predict(bad, timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(message)


def test_a_batch_far_over_the_limit_still_gets_our_sentence_and_not_the_transports(
    stub: prediction_pb2_grpc.PredictionServiceStub,
) -> None:
    images = np.zeros((1_000_000, 6), np.uint8)  # 6 MB: over gRPC's own default of 4 MiB
    code, details = failure(lambda: stub.Predict(request(images), timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "from 1 to 64 images a request, got 1000000" in details


def test_a_fault_of_the_server_shows_nothing_of_its_inside(
    stub: prediction_pb2_grpc.PredictionServiceStub,
    images: npt.NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret of /etc/shadow")

    monkeypatch.setattr(registry.Registry, "find", broken)
    code, details = failure(lambda: stub.Predict(request(images), timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.INTERNAL
    assert details == "internal error; the server's log has the cause"
    assert "the secret of /etc/shadow" in caplog.text


def test_a_stream_is_answered_in_order_and_each_batch_as_predict_answers_it(
    stub: prediction_pb2_grpc.PredictionServiceStub, model: Model
) -> None:
    rng = np.random.default_rng(3)
    batches = [rng.integers(0, 256, (count, 6), np.uint8) for count in (1, 64, 3, 1, 20)]
    requests = (stream_request(batch) for batch in batches)
    responses = list(stub.PredictStream(requests, timeout=TIMEOUT_S))
    assert len(responses) == len(batches)
    for response, batch in zip(responses, batches, strict=True):
        found = np.frombuffer(response.probabilities, "<f4").reshape(len(batch), 3)
        np.testing.assert_allclose(found, expected_probabilities(model, batch), rtol=0, atol=1e-6)


def test_a_stream_ends_at_its_first_bad_batch_and_what_came_before_is_good(
    stub: prediction_pb2_grpc.PredictionServiceStub, images: npt.NDArray[np.uint8]
) -> None:
    requests = [stream_request(images), stream_request(images, model_version=9)]
    call = stub.PredictStream(iter(requests), timeout=TIMEOUT_S)
    assert next(call).model_version == 2
    assert failure(lambda: next(call))[0] == grpc.StatusCode.NOT_FOUND


def test_streams_over_a_callers_share_are_refused_and_others_are_answered_meanwhile(
    server: Server,
    stub: prediction_pb2_grpc.PredictionServiceStub,
    images: npt.NDArray[np.uint8],
) -> None:
    ended = threading.Event()

    def open_stream(stub: prediction_pb2_grpc.PredictionServiceStub = stub) -> Any:
        def requests() -> Iterator[prediction_pb2.PredictStreamRequest]:
            yield stream_request(images)
            ended.wait(TIMEOUT_S)

        return stub.PredictStream(requests(), timeout=TIMEOUT_S)

    held = [open_stream() for _ in range(ServerConfig.max_streams // 2)]
    for call in held:
        next(call)  # it is open, and holds its place
    code, details = failure(lambda: next(open_stream()))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert f"the most at once is {ServerConfig.max_streams}" in details
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection, and so a caller, of its own
    with grpc.insecure_channel(server.address, options) as channel:
        other = open_stream(prediction_pb2_grpc.PredictionServiceStub(channel))
        assert next(other).model_version == 2
        other.cancel()
    assert stub.Predict(request(images), timeout=TIMEOUT_S).model_version == 2
    ended.set()
    for call in held:
        assert list(call) == []
    assert len(list(stub.PredictStream(iter([stream_request(images)]), timeout=TIMEOUT_S))) == 1


def test_a_stream_that_its_caller_cancels_gives_its_place_back(
    stub: prediction_pb2_grpc.PredictionServiceStub,
    images: npt.NDArray[np.uint8],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3 * ServerConfig.max_streams):
        gone = threading.Event()

        def requests(gone: threading.Event = gone) -> Iterator[prediction_pb2.PredictStreamRequest]:
            yield stream_request(images)
            gone.wait(TIMEOUT_S)

        call = stub.PredictStream(requests(), timeout=TIMEOUT_S, wait_for_ready=True)
        while True:
            try:
                next(call)
                break
            except grpc.RpcError as error:
                # The place of the one before is given back a moment after it was cancelled.
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                call = stub.PredictStream(requests(), timeout=TIMEOUT_S)
        call.cancel()
        gone.set()
    assert "failed" not in caplog.text


def test_models_are_described_as_they_were_published(
    stub: prediction_pb2_grpc.PredictionServiceStub, model: Model
) -> None:
    listed = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S).models
    assert [described.name for described in listed] == ["tiny"]
    assert [version.version for version in listed[0].versions] == [2, 1]
    got = stub.GetModel(prediction_pb2.GetModelRequest(model_version=1), timeout=TIMEOUT_S).model
    assert [version.version for version in got.versions] == [1]
    described, metadata = got.versions[0], model.metadata
    assert tuple(described.layer_sizes) == metadata.layer_sizes
    assert tuple(described.activations) == metadata.activations
    assert tuple(described.input_shape) == metadata.input.shape
    assert tuple(described.class_labels) == metadata.class_labels
    assert got.max_batch_images == 64
    assert set(described.input_data_types) == {1, 2}
    assert described.training.recipe == metadata.training.recipe
    assert described.training.seed == metadata.training.seed
    assert described.training.data_name == metadata.training.data_name
    assert described.training.data_digest == metadata.training.data_digest
    assert described.training.train_accuracy == metadata.training.train_accuracy
    assert described.training.test_accuracy == metadata.training.test_accuracy
    created_at = described.training.create_time.ToDatetime(metadata.training.created_at.tzinfo)
    assert created_at == metadata.training.created_at


def test_health_is_serving_for_the_whole_and_the_service_and_unknown_for_others(
    channel: grpc.Channel,
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        asked = health_pb2.HealthCheckRequest(service=service)
        assert health.Check(asked, timeout=TIMEOUT_S).status == 1
    unknown = health_pb2.HealthCheckRequest(service="no.such.Service")
    assert failure(lambda: health.Check(unknown, timeout=TIMEOUT_S))[0].name == "NOT_FOUND"


def test_reflection_shows_the_contract_to_tools_that_do_not_have_it(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services()
    pool = descriptor_pool.DescriptorPool(database)
    methods = pool.FindServiceByName(SERVICE).methods_by_name
    assert set(methods) == {"Predict", "PredictStream", "Explain", "GetModel", "ListModels"}


def test_a_health_watch_sees_the_server_stop_and_open_calls_are_answered(
    start_server: Callable[..., Server], images: npt.NDArray[np.uint8]
) -> None:
    server = start_server()
    with grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE), timeout=TIMEOUT_S
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        stopped = threading.Event()

        def requests() -> Iterator[prediction_pb2.PredictStreamRequest]:
            yield stream_request(images)
            assert stopped.wait(TIMEOUT_S)
            yield stream_request(images)

        call = stub.PredictStream(requests(), timeout=TIMEOUT_S)
        next(call)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        stopped.set()
        assert len(list(call)) == 1
        watch.cancel()
        stopper.join(TIMEOUT_S)
        assert not stopper.is_alive()


def test_the_health_check_tells_whether_a_server_would_answer(server: Server) -> None:
    assert health_problem(server.address) is None
    other = grpc.server(None)  # type: ignore[arg-type]
    port = other.add_insecure_port("127.0.0.1:0")
    other.stop(None)
    problem = health_problem(f"127.0.0.1:{port}", timeout_s=1)
    assert problem is not None
    assert "does not answer" in problem


def test_a_port_that_is_taken_is_said_to_be(models: Path, server: Server) -> None:
    with pytest.raises(StartError, match="Address already in use; choose others with --host and"):
        Server(ServerConfig(models=models, port=server.port))


@pytest.mark.parametrize("method", ["Predict", "Explain", "GetModel", "ListModels"])
def test_bytes_that_are_no_message_are_the_callers_fault(
    channel: grpc.Channel, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    call = channel.unary_unary(f"/{SERVICE}/{method}")
    code, details = failure(lambda: call(b"\xff" * 9, timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details == f"request: expected a mlpserve.v1.{method}Request, got 9 bytes that are none"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_stream_of_bytes_that_are_no_message_is_the_callers_fault(channel: grpc.Channel) -> None:
    stream: grpc.StreamStreamMultiCallable[bytes, bytes]
    stream = channel.stream_stream(f"/{SERVICE}/PredictStream")
    call = stream(iter([b"\xff"]), timeout=TIMEOUT_S)
    assert failure(lambda: next(call))[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_calls_of_reflection_over_the_limit_are_refused_and_others_are_answered_meanwhile(
    channel: grpc.Channel,
    stub: prediction_pb2_grpc.PredictionServiceStub,
    images: npt.NDArray[np.uint8],
) -> None:
    ended = threading.Event()
    reflect: grpc.StreamStreamMultiCallable[reflection_pb2.ServerReflectionRequest, bytes]
    reflect = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
    )

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        ended.wait(TIMEOUT_S)

    held = [reflect(requests(), timeout=TIMEOUT_S) for _ in range(2)]
    for call in held:
        next(call)
    refused = [reflect(requests(), timeout=TIMEOUT_S) for _ in range(20)]
    for call in refused:
        assert failure(lambda call=call: next(call))[0] == grpc.StatusCode.UNAVAILABLE
    assert stub.Predict(request(images), timeout=TIMEOUT_S).model_version == 2
    ended.set()
    for call in held:
        assert list(call) == []


def test_a_watch_of_health_does_not_keep_a_server_from_stopping(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(stop_grace_s=TIMEOUT_S)
    with grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        started_s = time.monotonic()
        server.stop()
        assert time.monotonic() - started_s < TIMEOUT_S / 2
        assert [change.status for change in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]


def test_a_batch_limit_that_no_message_can_carry_is_said_to_be_what_one_can(
    start_server: Callable[..., Server], images: npt.NDArray[np.uint8]
) -> None:
    server = start_server(max_batch_images=100_000_000, max_message_mb=1)
    most = (2**20 - 2**16) // (6 * 4)  # images of six values in float32
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        described = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
        assert described.models[0].max_batch_images == most
        largest = np.zeros((most, 6), np.float32)
        answer = stub.Predict(request(largest), timeout=TIMEOUT_S)
        assert len(answer.labels) == most * 4
        too_large = request(np.zeros((2 * most, 6), np.float32))
        code, _ = failure(lambda: stub.Predict(too_large, timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("setting", "value"),
    [("port", -1), ("port", 65536), ("max_batch_images", 0), ("max_streams", 14)],
)
def test_a_setting_out_of_its_range_is_refused_by_name(setting: str, value: int) -> None:
    with pytest.raises(StartError, match=f"{setting}: expected "):
        ServerConfig(models=Path(), **{setting: value})  # type: ignore[arg-type]
