"""ModelInfer on either adapter: what it takes, what it answers, what it refuses with which code."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from mlpserve.model.weights import Model
from mlpserve.oip import inference_pb2 as pb
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from oip_calls import (
    SERVICE,
    TIMEOUT_S,
    call,
    infer,
    probabilities,
    raw_outputs,
    raw_request,
    refusal,
    typed_request,
)

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64")
Images = npt.NDArray[np.uint8]


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


def expected(model: Model, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return model.network.probabilities(model.metadata.input.scale(images))


def predicted(channel: grpc.Channel, images: npt.NDArray[Any]) -> tuple[bytes, bytes]:
    """Return what Predict answers."""
    data_type = (
        prediction_pb2.DATA_TYPE_UINT8
        if images.dtype == np.uint8
        else prediction_pb2.DATA_TYPE_FLOAT32
    )
    batch = prediction_pb2.ImageBatch(count=len(images), data_type=data_type, data=images.tobytes())
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    response = stub.Predict(prediction_pb2.PredictRequest(images=batch), timeout=TIMEOUT_S)
    return response.probabilities, response.labels


def with_parameters(request: pb.ModelInferRequest, **values: Any) -> pb.ModelInferRequest:
    fields = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in values.items():
        setattr(request.parameters[name], fields[type(value)], value)
    return request


def test_all_outputs_come_raw_with_name_datatype_and_shape(
    channel: grpc.Channel, model: Model, images: Images
) -> None:
    response = infer(channel, raw_request(images, id="seven"))
    assert (response.model_name, response.model_version, response.id) == ("tiny", "2", "seven")
    described = [(each.name, each.datatype, list(each.shape)) for each in response.outputs]
    assert described == [("probabilities", "FP32", [5, 3]), ("labels", "INT32", [5])]
    assert not any(each.HasField("contents") for each in response.outputs)
    found = probabilities(response)
    np.testing.assert_allclose(found, expected(model, images), rtol=0, atol=1e-6)
    labels = np.frombuffer(raw_outputs(response)["labels"], "<i4")
    np.testing.assert_array_equal(labels, found.argmax(axis=1))


def test_whole_numbers_of_each_width_are_pixels(channel: grpc.Channel, images: Images) -> None:
    for dtype in INTEGERS:
        for write in (raw_request, typed_request):
            response = infer(channel, write(images.astype(dtype)))
            assert tuple(response.raw_output_contents) == predicted(channel, images), dtype


def test_floating_point_numbers_of_each_width_go_from_0_to_1(
    channel: grpc.Channel, images: Images
) -> None:
    for write, dtype in (
        (raw_request, "float16"),
        (raw_request, "float32"),
        (raw_request, "float64"),
        (typed_request, "float32"),
        (typed_request, "float64"),
    ):
        exact = (images / 256).astype(dtype)  # every width can say these
        response = infer(channel, write(exact))
        sent = predicted(channel, exact.astype(np.float32))
        assert tuple(response.raw_output_contents) == sent, dtype


def test_bfloat16_is_read(channel: grpc.Channel) -> None:
    values = np.array([[0, 0.5, 1, 0.25, 0.75, 0.125]], np.float32)
    request = raw_request(values)
    request.inputs[0].datatype = "BF16"
    request.raw_input_contents[0] = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    assert tuple(infer(channel, request).raw_output_contents) == predicted(channel, values)


def test_images_may_be_flat_or_have_their_shape(channel: grpc.Channel, images: Images) -> None:
    shaped, flat = (infer(channel, raw_request(each)) for each in (images, images.reshape(5, 6)))
    assert shaped == flat


def test_only_the_outputs_that_are_asked_for_come_in_their_order(
    channel: grpc.Channel, images: Images
) -> None:
    for names in (["labels"], ["labels", "probabilities"]):
        request = raw_request(images)
        for name in names:
            request.outputs.add(name=name)
        response = infer(channel, request)
        assert [output.name for output in response.outputs] == names
        assert len(response.raw_output_contents) == len(names)


@pytest.mark.parametrize(
    ("parameters", "fields"),
    [
        ({"steps": 8}, {"steps": 8}),
        (
            {"steps": 3, "class": 2, "method": "integrated_gradients"},
            {"steps": 3, "classes": np.full(5, 2, "<i4").tobytes()},
        ),
        (
            {"method": "gradient_times_input"},
            {"method": prediction_pb2.EXPLANATION_METHOD_GRADIENT_TIMES_INPUT},
        ),
    ],
    ids=str,
)
def test_attributions_are_those_of_explain(
    channel: grpc.Channel, images: Images, parameters: dict[str, Any], fields: dict[str, Any]
) -> None:
    request = output("attributions", **parameters)(images)
    request.outputs.add(name="labels")
    response = infer(channel, request)
    described = [(each.name, each.datatype, list(each.shape)) for each in response.outputs]
    assert described == [("attributions", "FP32", [5, 6]), ("labels", "INT32", [5])]
    batch = prediction_pb2.ImageBatch(
        count=5, data_type=prediction_pb2.DATA_TYPE_UINT8, data=images.tobytes()
    )
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    explained = stub.Explain(
        prediction_pb2.ExplainRequest(images=batch, **fields), timeout=TIMEOUT_S
    )
    assert raw_outputs(response) == {
        "attributions": explained.attributions,
        "labels": explained.labels,
    }


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_classification_tells_the_most_probable_classes_with_their_labels(
    channel: grpc.Channel, model: Model, images: Images, count: int
) -> None:
    request = raw_request(images)
    output = request.outputs.add(name="probabilities")
    output.parameters["classification"].int64_param = count
    (tensor,) = (response := infer(channel, request)).outputs
    shown = min(count, 3)
    assert (tensor.datatype, list(tensor.shape)) == ("BYTES", [5, shown])
    texts = "".join(
        f"{row[index]:f}:{index}:{model.metadata.class_labels[index]}\n"
        for row in probabilities(infer(channel, raw_request(images)))
        for index in np.argsort(-row, kind="stable")[:shown]
    )
    assert "".join(each + "\n" for each in bytes_elements(response.raw_output_contents[0])) == texts


def bytes_elements(data: bytes) -> Iterator[str]:
    while data:
        length = int.from_bytes(data[:4], "little")
        yield data[4 : 4 + length].decode()
        data = data[4 + length :]


@pytest.mark.parametrize("version", ["", "1", "2"])
def test_a_version_is_a_text_and_comes_back_as_one(
    channel: grpc.Channel, images: Images, version: str
) -> None:
    response = infer(channel, raw_request(images, model_version=version))
    assert response.model_version == version or (version, response.model_version) == ("", "2")


def changed(**fields: Any) -> Callable[[Images], pb.ModelInferRequest]:
    """Return a function that writes a good request, but for some fields of its input."""

    def write(images: Images) -> pb.ModelInferRequest:
        request = raw_request(images)
        for name, value in fields.items():
            if name == "shape":
                request.inputs[0].shape[:] = value
            else:
                setattr(request.inputs[0], name, value)
        return request

    return write


def raw_and_typed(images: Images) -> pb.ModelInferRequest:
    request = typed_request(images)
    request.raw_input_contents.append(images.tobytes())
    return request


def output(name: str, **parameters: Any) -> Callable[[Images], pb.ModelInferRequest]:
    def write(images: Images) -> pb.ModelInferRequest:
        request = raw_request(images)
        asked = request.outputs.add(name=name)
        for key, value in parameters.items():
            field = "int64_param" if isinstance(value, int) else "string_param"
            setattr(asked.parameters[key], field, value)
        return request

    return write


def twice(images: Images) -> pb.ModelInferRequest:
    request = raw_request(images)
    request.outputs.add(name="labels")
    request.outputs.add(name="labels")
    return request


def in_shared_memory(images: Images) -> pb.ModelInferRequest:
    request = raw_request(images, raw_input_contents=[])
    request.inputs[0].parameters["shared_memory_region"].string_param = "here"
    return request


def other_contents(images: Images) -> pb.ModelInferRequest:
    request = raw_request(images, raw_input_contents=[])
    request.inputs[0].contents.fp32_contents.extend([0.5] * 30)
    return request


REFUSED: list[tuple[Callable[[Images], pb.ModelInferRequest], str, str]] = [
    (lambda i: raw_request(i, model_name="huge"), "NOT_FOUND", "Request for unknown model: 'huge'"),
    (lambda i: raw_request(i, model_version="7"), "NOT_FOUND", "'tiny' version '7' is not found"),
    (lambda i: raw_request(i, model_version="canary"), "NOT_FOUND", "'canary' is not found"),
    (lambda i: raw_request(i, model_version="-1"), "INVALID_ARGUMENT", "version string '-1'"),
    (lambda i: raw_request(i, model_version="9" * 5000), "INVALID_ARGUMENT", "version string '999"),
    (
        changed(shape=[5, 7]),
        "INVALID_ARGUMENT",
        "unexpected shape for input 'images' for model 'tiny'. Expected [-1,6] or [-1,2,3], "
        "got [5,7]",
    ),
    (changed(shape=[]), "INVALID_ARGUMENT", "got []"),
    (changed(shape=[6]), "INVALID_ARGUMENT", "got [6]"),
    (changed(shape=[1] * 17), "INVALID_ARGUMENT", "at most 16 dimensions"),
    (
        changed(shape=[0, 6]),
        "INVALID_ARGUMENT",
        "batch-size must be from 1 to 64 for 'tiny', got 0",
    ),
    (changed(shape=[-1, 6]), "INVALID_ARGUMENT", "batch-size"),
    (changed(shape=[65, 6]), "INVALID_ARGUMENT", "batch-size must be from 1 to 64"),
    (changed(shape=[2**62, 6]), "INVALID_ARGUMENT", "batch-size"),
    (changed(shape=[4, 6]), "INVALID_ARGUMENT", "input byte size mismatch for input 'images' for"),
    (changed(name="input-0"), "INVALID_ARGUMENT", "unexpected inference input 'input-0' for"),
    (changed(datatype="BYTES"), "INVALID_ARGUMENT", "unexpected datatype for input 'images'"),
    (changed(datatype="FP32"), "INVALID_ARGUMENT", "Expected 120, got 30"),
    (changed(datatype="BOOL"), "INVALID_ARGUMENT", "got BOOL"),
    (changed(datatype="INT8"), "INVALID_ARGUMENT", "INT8 values from 0 to 127"),
    (lambda i: raw_request(i, raw_input_contents=[]), "INVALID_ARGUMENT", "Expected 30, got 0"),
    (lambda i: raw_request(i, raw_input_contents=[b"", b""]), "INVALID_ARGUMENT", "got 2"),
    (raw_and_typed, "INVALID_ARGUMENT", "when using raw_input_contents"),
    (other_contents, "INVALID_ARGUMENT", "expected uint_contents for UINT8, got fp32_contents"),
    (lambda _: pb.ModelInferRequest(model_name="tiny"), "INVALID_ARGUMENT", "but got 0 inputs"),
    (output("logits"), "INVALID_ARGUMENT", "unexpected inference output 'logits'"),
    (twice, "INVALID_ARGUMENT", "outputs: expected each once"),
    (output("labels", classification=1), "INVALID_ARGUMENT", "with 'probabilities' only"),
    (output("probabilities", classification=-1), "INVALID_ARGUMENT", "classification: expected"),
    (output("probabilities", classification="1"), "INVALID_ARGUMENT", "invalid value type for"),
    (output("attributions"), "INVALID_ARGUMENT", "from 1 to 3 images to explain, because each"),
    (output("attributions", steps=0), "INVALID_ARGUMENT", "steps: expected from 1 to 256, got 0"),
    (output("attributions", steps="x"), "INVALID_ARGUMENT", "invalid value type for 'steps'"),
    (output("attributions", method="lime"), "INVALID_ARGUMENT", "or gradient_times_input, got li"),
    (
        output("attributions", method="gradient_times_input", steps=8),
        "INVALID_ARGUMENT",
        "steps: expected none with gradient_times_input",
    ),
    (
        output("attributions", **{"steps": 8, "class": 3}),
        "INVALID_ARGUMENT",
        "class: expected from 0 to 2, or -1 for the most probable, got 3",
    ),
    (output("attributions", classification=1), "INVALID_ARGUMENT", "with 'probabilities' only"),
    (output("probabilities", shared_memory_region="x"), "UNIMPLEMENTED", "shared memory"),
    (in_shared_memory, "UNIMPLEMENTED", "shared memory is not supported"),
    (lambda i: with_parameters(raw_request(i), sequence_id=7), "UNIMPLEMENTED", "sequence_id"),
    (lambda i: with_parameters(raw_request(i), timeout=-1), "INVALID_ARGUMENT", "timeout"),
    (lambda i: with_parameters(raw_request(i), timeout="soon"), "INVALID_ARGUMENT", "'timeout'"),
    (lambda i: with_parameters(raw_request(i), priority=1.5), "INVALID_ARGUMENT", "'priority'"),
    (
        lambda i: raw_request((i / 128).astype(np.float32)),
        "INVALID_ARGUMENT",
        "input 'images': expected FP32 values from 0 to 1",
    ),
    (
        lambda i: raw_request(np.full(i.shape, np.nan, np.float64)),
        "INVALID_ARGUMENT",
        "expected FP64 values from 0 to 1, got NaN",
    ),
    (lambda i: raw_request(i / 255), "INVALID_ARGUMENT", "round them, and send FP32"),
    (lambda i: raw_request(i.astype(np.int32) + 1000), "INVALID_ARGUMENT", "INT32 values from 0"),
    (lambda i: typed_request(i.astype(np.int64) - 300), "INVALID_ARGUMENT", "INT64 values from 0"),
]


def test_what_cannot_be_answered_is_refused_as_clients_of_triton_expect(
    channel: grpc.Channel, images: Images
) -> None:
    for write, code, message in REFUSED:
        found, details = refusal(partial(infer, channel, write(images)))
        assert (found, message in details) == (code, True), (message, found, details)
    infer(channel, raw_request(images))  # and the server goes on


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel) -> None:
    raw: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    code, details = refusal(lambda: raw(b"\xff\xff\xff", timeout=TIMEOUT_S))
    assert code == "INVALID_ARGUMENT"
    assert "inference.ModelInferRequest" in details


def test_known_and_unknown_parameters_change_no_answer(
    channel: grpc.Channel, images: Images
) -> None:
    plain = infer(channel, raw_request(images))
    for parameters in (
        {"priority": 1, "timeout": 10_000_000},
        {"priority": 99, "timeout": 0},
        {"mood": "good", "headers": True, "share": 0.5},
    ):
        assert infer(channel, with_parameters(raw_request(images), **parameters)) == plain


@pytest.mark.parametrize(
    "method", ["SystemSharedMemoryStatus", "CudaSharedMemoryStatus", "TraceSetting", "LogSettings"]
)
def test_what_is_not_implemented_says_so(channel: grpc.Channel, method: str) -> None:
    ask = lambda: call(channel, method, pb.ServerLiveRequest(), pb.ServerLiveResponse)  # noqa: E731
    assert refusal(ask)[0] == "UNIMPLEMENTED"


def test_reflection_describes_the_protocol_too(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services()
    service = descriptor_pool.DescriptorPool(database).FindServiceByName(SERVICE)
    assert service.methods_by_name["ModelInfer"].input_type.name == "ModelInferRequest"
    assert "TraceSetting" not in service.methods_by_name


def test_predict_and_model_infer_go_through_the_network_together(
    server: Server, channel: grpc.Channel, images: Images
) -> None:
    before = passes(channel)
    calls: Any = channel.unary_unary(
        f"/{SERVICE}/ModelInfer", request_serializer=lambda message: message.SerializeToString()
    )
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    batch = prediction_pb2.ImageBatch(
        count=5, data_type=prediction_pb2.DATA_TYPE_UINT8, data=images.tobytes()
    )
    asked = prediction_pb2.PredictRequest(images=batch)
    waiting = [
        ask
        for _ in range(100)
        for ask in (
            calls.future(raw_request(images), timeout=TIMEOUT_S),
            stub.Predict.future(asked, timeout=TIMEOUT_S),
        )
    ]
    for each in waiting:
        each.result()
    executed, classified = passes(channel)
    assert classified - before[1] == 1000
    assert executed - before[0] < 200


def test_a_request_that_waits_longer_than_its_timeout_is_unavailable(
    channel: grpc.Channel, images: Images
) -> None:
    hasty = with_parameters(raw_request(images), timeout=1)  # reading it takes longer
    code, details = refusal(lambda: infer(channel, hasty))
    assert code == "UNAVAILABLE"
    assert details.startswith("Request timeout expired")


def passes(channel: grpc.Channel) -> tuple[int, int]:
    """Return how many passes there were, and of how many images."""
    asked = pb.ModelStatisticsRequest(name="tiny", version="2")
    (found,) = call(channel, "ModelStatistics", asked, pb.ModelStatisticsResponse).model_stats
    return found.execution_count, found.inference_count
