"""Out-of-distribution scores over every endpoint, on either adapter, and versions without any."""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from mlpserve.oip import inference_pb2 as pb
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from oip_calls import call, infer, raw_outputs, raw_request, refusal

TIMEOUT_S = 10.0
IMAGES = np.random.default_rng(8).integers(0, 256, (6, 2, 3), np.uint8)


@pytest.fixture
def tiny_models(models: Path, model: Model, scored_model: Model) -> None:
    """Publish version 1 without a score, as an earlier release did, and version 2 with one."""
    publish(models, model)
    publish(models, scored_model)


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(max_batch_images=1024, http_port=0)


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> PredictionServiceStub:
    return PredictionServiceStub(channel)


def batch(images: npt.NDArray[Any]) -> prediction_pb2.ImageBatch:
    is_uint8 = images.dtype == np.uint8
    kind = prediction_pb2.DATA_TYPE_UINT8 if is_uint8 else prediction_pb2.DATA_TYPE_FLOAT32
    return prediction_pb2.ImageBatch(count=len(images), data_type=kind, data=images.tobytes())


def asked(
    images: npt.NDArray[Any] = IMAGES, *, scores: bool = True, version: int = 0
) -> prediction_pb2.PredictRequest:
    return prediction_pb2.PredictRequest(
        images=batch(images), with_ood_scores=scores, model_version=version
    )


def of_the_model(model: Model, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return what the model itself computes."""
    spec = model.metadata.input
    assert model.detector is not None
    return model.detector.scores(images, model.network.probabilities(spec.scale(images)), spec)


@pytest.mark.parametrize("count", [1, 6, 700])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_scores_are_those_of_the_model_itself(
    stub: PredictionServiceStub, scored_model: Model, dtype: str, count: int
) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 2, 3), np.uint8)
    sent = images if dtype == "uint8" else (images / 255).astype(np.float32)
    response = stub.Predict(asked(sent), timeout=TIMEOUT_S)
    found = np.frombuffer(response.ood_scores, "<f4")
    np.testing.assert_allclose(found, of_the_model(scored_model, sent), rtol=1e-3, atol=1e-3)


def test_who_does_not_ask_gets_none_and_the_same_answer(stub: PredictionServiceStub) -> None:
    scored, plain = (
        stub.Predict(asked(scores=scores), timeout=TIMEOUT_S) for scores in (True, False)
    )
    assert len(scored.ood_scores) == 4 * len(IMAGES)
    assert not plain.ood_scores
    assert (scored.probabilities, scored.labels) == (plain.probabilities, plain.labels)


def test_each_request_of_a_stream_says_for_itself_whether_it_wants_them(
    stub: PredictionServiceStub, scored_model: Model
) -> None:
    requests = [
        prediction_pb2.PredictStreamRequest(images=batch(IMAGES), with_ood_scores=wanted)
        for wanted in (True, False, True)
    ]
    first, second, third = stub.PredictStream(iter(requests), timeout=TIMEOUT_S)
    found = np.frombuffer(first.ood_scores, "<f4")
    np.testing.assert_allclose(found, of_the_model(scored_model, IMAGES), rtol=1e-3, atol=1e-3)
    assert not second.ood_scores
    assert third.ood_scores == first.ood_scores


def test_the_description_tells_the_threshold_of_versions_that_have_one(
    stub: PredictionServiceStub, scored_model: Model
) -> None:
    described = stub.GetModel(prediction_pb2.GetModelRequest(), timeout=TIMEOUT_S).model.versions
    [scored] = [version for version in described if version.version == 2]
    assert scored_model.detector is not None
    assert scored.ood_threshold == scored_model.detector.threshold
    pinned = prediction_pb2.GetModelRequest(model_version=1)
    [plain] = stub.GetModel(pinned, timeout=TIMEOUT_S).model.versions
    assert not plain.HasField("ood_threshold")


def test_a_version_without_a_score_says_so_and_what_to_do(
    server: Server, start_server: Callable[..., Server]
) -> None:
    both = start_server(versions="all")
    with grpc.insecure_channel(both.address) as opened:
        stub = PredictionServiceStub(opened)
        status, message = refusal(lambda: stub.Predict(asked(version=1), timeout=TIMEOUT_S))
        assert status == "INVALID_ARGUMENT"
        assert message.startswith("with_ood_scores: version 1 of model 'tiny' has no out-of-")
        assert message.endswith("train it again, or leave this out")
        assert stub.Predict(asked(version=1, scores=False), timeout=TIMEOUT_S).model_version == 1
        request = raw_request(IMAGES, model_version="1")
        request.outputs.add(name="ood_scores")
        status, message = refusal(lambda: infer(opened, request))
        assert status == "INVALID_ARGUMENT"
        assert message.startswith("output 'ood_scores': version 1 of model 'tiny' has no")


def test_the_open_inference_protocol_has_them_as_an_output_for_those_who_name_it(
    channel: grpc.Channel, stub: PredictionServiceStub, server: Server
) -> None:
    expected = stub.Predict(asked(), timeout=TIMEOUT_S).ood_scores
    request = raw_request(IMAGES)
    assert [output.name for output in infer(channel, request).outputs] == [
        "probabilities",
        "labels",
    ]
    for name in ("labels", "ood_scores"):
        request.outputs.add(name=name)
    response = infer(channel, request)
    described = [(each.name, each.datatype, list(each.shape)) for each in response.outputs]
    assert described == [("labels", "INT32", [6]), ("ood_scores", "FP32", [6])]
    assert raw_outputs(response)["ood_scores"] == expected
    tensor = {"name": "images", "datatype": "UINT8", "shape": [6, 6], "data": IMAGES.tolist()}
    assert server.http is not None
    connection = http.client.HTTPConnection("127.0.0.1", server.http.port, timeout=TIMEOUT_S)
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "ood_scores"}]})
    connection.request("POST", "/v2/models/tiny/infer", body)
    [output] = json.loads(connection.getresponse().read())["outputs"]
    connection.close()
    assert np.array(output["data"], np.float32).tobytes() == expected


def test_an_image_is_explained_and_scored_by_one_request(
    channel: grpc.Channel, stub: PredictionServiceStub
) -> None:
    request = raw_request(IMAGES)
    for name in ("attributions", "ood_scores", "probabilities"):
        request.outputs.add(name=name)
    found = raw_outputs(infer(channel, request))
    assert len(found["attributions"]) == 4 * IMAGES.size
    scored = np.frombuffer(found["ood_scores"], "<f4")
    alone = stub.Predict(asked(), timeout=TIMEOUT_S).ood_scores
    np.testing.assert_allclose(scored, np.frombuffer(alone, "<f4"), rtol=1e-3, atol=1e-3)


def test_the_open_inference_protocol_describes_them_where_there_are_any(
    channel: grpc.Channel, scored_model: Model
) -> None:
    assert scored_model.detector is not None
    asked_of = pb.ModelMetadataRequest(name="tiny")
    metadata = call(channel, "ModelMetadata", asked_of, pb.ModelMetadataResponse)
    last = metadata.outputs[-1]
    assert (last.name, last.datatype, list(last.shape)) == ("ood_scores", "FP32", [-1])
    config = call(
        channel, "ModelConfig", pb.ModelConfigRequest(name="tiny"), pb.ModelConfigResponse
    ).config
    assert config.output[-1].name == "ood_scores"
    told = np.float32(config.parameters["ood_threshold"].string_value)
    assert told == np.float32(scored_model.detector.threshold)
