"""Requests that name no model: the default model answers them, whatever else is served."""

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.oip import inference_pb2 as oip
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2 as v1
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from oip_calls import call, infer, raw_request, refusal, stream_infer

TIMEOUT_S = 60.0
PIXELS = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
IMAGES = v1.ImageBatch(count=1, data_type=v1.DATA_TYPE_UINT8, data=PIXELS.tobytes())

StartServer = Callable[..., Server]


def predict(channel: grpc.Channel, version: int) -> Any:
    request = v1.PredictRequest(images=IMAGES, model_version=version)
    return PredictionServiceStub(channel).Predict(request, timeout=TIMEOUT_S)


def predict_stream(channel: grpc.Channel, version: int) -> Any:
    request = v1.PredictStreamRequest(images=IMAGES, model_version=version)
    return next(PredictionServiceStub(channel).PredictStream(iter([request]), timeout=TIMEOUT_S))


def explain(channel: grpc.Channel, version: int) -> Any:
    request = v1.ExplainRequest(images=IMAGES, model_version=version)
    return PredictionServiceStub(channel).Explain(request, timeout=TIMEOUT_S)


def get_model(channel: grpc.Channel, version: int) -> Any:
    request = v1.GetModelRequest(model_version=version)
    return PredictionServiceStub(channel).GetModel(request, timeout=TIMEOUT_S)


def model_infer(channel: grpc.Channel, version: int) -> Any:
    return infer(channel, nameless_request(version))


def model_stream_infer(channel: grpc.Channel, version: int) -> Any:
    return stream_infer(channel, nameless_request(version))


def nameless_request(version: int) -> oip.ModelInferRequest:
    return raw_request(PIXELS, model_name="", model_version=str(version or ""))


@pytest.fixture
def start(publish: Callable[..., None], start_server: StartServer) -> StartServer:
    """Return a function that starts a server of two models, with settings."""
    publish("birds", versions=1)
    return start_server


@pytest.mark.parametrize("ask", [predict, predict_stream, explain, model_infer, model_stream_infer])
def test_requests_without_a_name_are_answered_by_the_default_model(
    start: StartServer, ask: Callable[[grpc.Channel, int], Any]
) -> None:
    with grpc.insecure_channel(start(default_model="tiny").address) as channel:
        for asked, found in ((0, 2), (1, 1)):
            answer = ask(channel, asked)
            assert (answer.model_name, int(answer.model_version)) == ("tiny", found)
        with pytest.raises((grpc.RpcError, LookupError), match="version 9 of model 'tiny'"):
            ask(channel, 9)


def test_the_default_model_is_described_where_no_name_is_asked_for(start: StartServer) -> None:
    with grpc.insecure_channel(start(default_model="tiny").address) as channel:
        assert get_model(channel, 0).model.name == "tiny"
        request = oip.ModelMetadataRequest()
        answer = call(channel, "ModelMetadata", request, oip.ModelMetadataResponse)
        assert (answer.name, list(answer.versions)) == ("tiny", ["2", "1"])


@pytest.mark.parametrize("ask", [predict, predict_stream, explain, get_model, model_infer])
def test_requests_without_a_name_are_refused_where_the_default_model_is_not_served(
    start: StartServer, ask: Callable[[grpc.Channel, int], Any]
) -> None:
    with grpc.insecure_channel(start(default_model="cats").address) as channel:
        code, details = refusal(lambda: ask(channel, 0))
    assert code == "NOT_FOUND"
    assert details.endswith(
        "model_name: required, because the server's default_model 'cats' is not served; "
        "served are: birds, tiny"
    )


def test_over_http_the_path_names_the_model_whichever_is_the_default(start: StartServer) -> None:
    server = start(default_model="tiny", http_port=0)
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=TIMEOUT_S)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 6], "data": [9] * 6}
    for name, status in (("birds", 200), ("tiny", 200), ("cats", 404), ("", 404)):
        connection.request(
            "POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [tensor]}).encode()
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert (response.status, answer.get("model_name")) == (
            status,
            name if status == 200 else None,
        )
    connection.close()


def test_every_worker_knows_the_default_model(
    start: StartServer, run_server: Callable[..., Any]
) -> None:
    with run_server("--workers", "2", "--default-model", "tiny") as server:
        for _ in range(20):  # each over a connection of its own, which any worker may take
            with grpc.insecure_channel(server.address) as channel:
                assert predict(channel, 0).model_name == "tiny"
        server.stop()


def test_a_default_model_that_is_not_served_is_logged_until_it_is(
    models: Path,
    publish: Callable[..., None],
    serve_folder: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = "default_model: model 'tiny' is not served; requests that name no model are refused"
    local = serve_folder(models, default_model="tiny")
    assert said not in caplog.text  # nothing is served yet
    publish("birds", versions=1)
    local.reloaded()
    assert caplog.text.count(said) == 1
    publish("birds", versions=1)
    local.reloaded()
    assert caplog.text.count(said) == 1
    publish("tiny", versions=1)
    local.reloaded()
    assert local.registry.find("", 0).metadata.name == "tiny"
    local.controller.unload("tiny")
    assert caplog.text.count(said) == 2
