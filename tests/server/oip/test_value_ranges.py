"""Models whose images have values of a range of their own, asked through every endpoint."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.client import Client, InvalidRequestError
from mlpserve.model.inputs import InputSpec, ValueRange
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model, golden_samples
from mlpserve.oip import inference_pb2 as pb
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from oip_calls import call, infer, raw_outputs, raw_request, typed_request

TIMEOUT_S = 60.0
WHOLE = {
    "sixteen": (ValueRange(0, 16), ["u1", "i1", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8"]),
    "mask": (ValueRange(0, 1), ["u1", "<i8", "<f2", "<f4"]),
    "signed": (ValueRange(-1, 1), ["i1", "<i2", "<i8", "<f2", "<f4", "<f8"]),
    "bits12": (ValueRange(0, 4095), ["<u2", "<i2", "<i4", "<u8", "<f4", "<f8"]),
    "bits16": (ValueRange(0, 65535), ["<u2", "<i4", "<u4", "<f4"]),
}
every_model = pytest.mark.parametrize("name", WHOLE)


def whole_values(name: str) -> npt.NDArray[np.int64]:
    value_range, _ = WHOLE[name]
    rng = np.random.default_rng(4)
    return rng.integers(int(value_range.low), int(value_range.high) + 1, (5, 2, 3))


@pytest.fixture
def tiny_models(models: Path, model: Model) -> None:
    for name, (value_range, _) in WHOLE.items():
        spec = InputSpec((2, 3), value_range=value_range)
        golden = golden_samples(model.network, spec, whole_values(name))
        training = replace(model.metadata.training, warnings=("all is grey",))
        metadata = replace(model.metadata, name=name, input=spec, training=training)
        publish(models, Model(model.network, metadata, golden))


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


def expected(model: Model, name: str) -> npt.NDArray[np.float32]:
    value_range, _ = WHOLE[name]
    inputs = InputSpec((2, 3), value_range=value_range).scale(whole_values(name))
    return model.network.probabilities(inputs).astype(np.float32)


def post(address: str, name: str, body: bytes, headers: dict[str, str]) -> Any:
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    connection.request("POST", f"/v2/models/{name}/infer", body, headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


@every_model
def test_the_values_of_a_range_are_answered_alike_whatever_their_data_type(
    channel: grpc.Channel, server: Server, model: Model, name: str
) -> None:
    values, wanted = whole_values(name), expected(model, name)
    with Client(server.address) as client:
        for dtype in WHOLE[name][1]:
            sent = values.astype(dtype)
            found = client.predict(sent, model=name).probabilities
            np.testing.assert_allclose(found, wanted, atol=1e-5)
            for write in (raw_request, typed_request):
                if write is typed_request and dtype == "<f2":
                    continue
                outputs = raw_outputs(infer(channel, write(sent, model_name=name)))
                answered = np.frombuffer(outputs["probabilities"], "<f4").reshape(-1, 3)
                np.testing.assert_allclose(answered, wanted, atol=1e-5)


@every_model
def test_json_and_bare_bodies_are_answered_as_well(
    http_address: str, model: Model, name: str
) -> None:
    values, wanted = whole_values(name), expected(model, name)
    for datatype in ("INT32", "FP32"):
        tensor = {"name": "images", "datatype": datatype, "shape": [5, 6], "data": values.tolist()}
        answer = post(http_address, name, json.dumps({"inputs": [tensor]}).encode(), {})
        np.testing.assert_allclose(answer["outputs"][0]["data"], wanted.ravel(), atol=1e-5)
    # A body that is nothing but values has those of the datatype that the metadata name.
    bare = post(
        http_address, name, values.astype("<f4").tobytes(), {"Inference-Header-Content-Length": "0"}
    )
    np.testing.assert_allclose(bare["outputs"][0]["data"], wanted.ravel(), atol=1e-5)


def test_values_beyond_the_range_are_refused_by_its_limits(
    channel: grpc.Channel, server: Server, http_address: str
) -> None:
    beyond = "values from 0 to 16, got 0 to 255; scale them as those were that the model learned"
    images = np.array([[[0, 0, 0], [0, 0, 255]]], np.uint8)
    with Client(server.address) as client:
        for dtype in (np.uint8, np.float32):
            sent = images.astype(dtype)
            with pytest.raises(InvalidRequestError) as refused:
                client.predict(sent, model="sixteen")
            assert f"images.data: expected {sent.dtype.name} {beyond}" in str(refused.value)
    for kind, datatype in (("u1", "UINT8"), ("<i8", "INT64"), ("<f4", "FP32"), ("<f8", "FP64")):
        with pytest.raises(grpc.RpcError) as failed:
            infer(channel, raw_request(images.astype(kind), model_name="sixteen"))
        assert f"input 'images': expected {datatype} {beyond}" in str(failed.value)
    tensor = {"name": "images", "datatype": "INT8", "shape": [1, 6], "data": [0, 0, 0, 0, 0, 255]}
    answer = post(http_address, "bits12", json.dumps({"inputs": [tensor]}).encode(), {})
    assert "expected INT8 values from 0 to 127, got 0 to 255" in answer["error"]


def test_what_float32_would_round_is_refused_in_plain_digits(channel: grpc.Channel) -> None:
    values = np.full((1, 2, 3), 0.1)
    with pytest.raises(grpc.RpcError) as failed:
        infer(channel, raw_request(values, model_name="sixteen"))
    assert "got 0.1; round them, and send FP32" in str(failed.value)


def test_descriptions_tell_the_range(channel: grpc.Channel, server: Server) -> None:
    stub = PredictionServiceStub(channel)
    found = {}
    for name, (value_range, _) in WHOLE.items():
        request = prediction_pb2.GetModelRequest(model_name=name)
        (version,) = stub.GetModel(request, timeout=TIMEOUT_S).model.versions
        assert version.value_range == prediction_pb2.ValueRange(
            low=value_range.low, high=value_range.high
        )
        found[name] = list(version.input_data_types)
        with Client(server.address) as client:
            (told,) = client.model(name).versions
            assert told.value_range == (value_range.low, value_range.high)
            assert told.training.warnings == ("all is grey",)
        metadata = call(
            channel, "ModelMetadata", pb.ModelMetadataRequest(name=name), pb.ModelMetadataResponse
        )
        assert metadata.inputs[0].datatype == "FP32"
        config = call(
            channel, "ModelConfig", pb.ModelConfigRequest(name=name), pb.ModelConfigResponse
        ).config
        assert config.input[0].data_type == pb.TYPE_FP32
        assert config.parameters["value_range"].string_value == str(value_range)
    # A data type is offered where it has all values.
    both, floats = [1, 2], [2]
    assert found == {
        "sixteen": both,
        "mask": both,
        "signed": floats,
        "bits12": floats,
        "bits16": floats,
    }


def test_a_configuration_in_json_has_the_range(http_address: str) -> None:
    connection = http.client.HTTPConnection(http_address, timeout=TIMEOUT_S)
    connection.request("GET", "/v2/models/sixteen/config")
    config = json.loads(connection.getresponse().read())
    connection.close()
    assert config["parameters"] == {"value_range": {"string_value": "0 to 16"}}
