"""Models come and go while a server serves: through a real server, as its callers see it."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.model.compiled import Workspace
from mlpserve.model.folder import weights_path
from mlpserve.model.labels import roll_back, set_label
from mlpserve.model.network import Network
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.server.grpc_api.health import LIVENESS
from mlpserve.server.server import Server
from mlpserve.server.settings.config import MANUAL
from mlpserve.server.telemetry.request_record import RequestRecord
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

Stub = prediction_pb2_grpc.PredictionServiceStub
StartServer = Callable[..., Server]
Publish = Callable[..., None]
TIMEOUT_S = 60.0
SOON_S = 10.0
PAUSE_S = 0.01  # in which others, and the server in this process, have the processor
IMAGE = prediction_pb2.ImageBatch(
    count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes([9] * 6)
)


@pytest.fixture
def stub(start_server: StartServer) -> Iterator[Stub]:
    """Return what calls a server that follows its models folder, with two versions of tiny."""
    with grpc.insecure_channel(start_server().address) as channel:
        yield Stub(channel)


def answering(stub: Stub, **asked: Any) -> int:
    """Return which version answers."""
    request = prediction_pb2.PredictRequest(model_name="tiny", images=IMAGE, **asked)
    return stub.Predict(request, timeout=TIMEOUT_S).model_version


def listed(stub: Stub) -> dict[str, prediction_pb2.Model]:
    models = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S).models
    return {model.name: model for model in models}


def served(stub: Stub) -> dict[str, list[int]]:
    return {name: [v.version for v in model.versions] for name, model in listed(stub).items()}


def seconds_until(is_so: Callable[[], bool]) -> float:
    """Wait until something is so, and return how long that took."""
    started_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - started_s < TIMEOUT_S
        threading.Event().wait(PAUSE_S)
    return time.monotonic() - started_s


def test_a_new_version_answers_soon(stub: Stub, publish: Publish) -> None:
    assert answering(stub) == 2
    publish("tiny", versions=1)
    assert seconds_until(lambda: answering(stub) == 3) < SOON_S
    assert served(stub) == {"tiny": [3, 2]}


def test_a_new_model_answers_soon(stub: Stub, publish: Publish) -> None:
    publish("letters", versions=1)
    assert seconds_until(lambda: "letters" in served(stub)) < SOON_S


def test_labels_are_followed_soon(stub: Stub, models: Path, publish: Publish) -> None:
    publish("tiny", versions=2)
    set_label(models, "tiny", "stable", 1)
    assert seconds_until(lambda: answering(stub) == 1) < SOON_S
    set_label(models, "tiny", "canary", 4)
    assert (
        seconds_until(lambda: "canary" in {x.label for x in listed(stub)["tiny"].labels}) < SOON_S
    )
    assert answering(stub, model_label="canary") == 4
    assert answering(stub, model_label="stable") == 1
    assert answering(stub, model_version=3) == 3
    set_label(models, "tiny", "stable", 3)
    assert seconds_until(lambda: answering(stub) == 3) < SOON_S
    roll_back(models, "tiny", "stable")
    assert seconds_until(lambda: answering(stub) == 1) < SOON_S


def test_models_are_described_with_their_labels(stub: Stub, models: Path, publish: Publish) -> None:
    set_label(models, "tiny", "stable", 1)
    set_label(models, "tiny", "canary", 2)
    seconds_until(lambda: len(listed(stub)["tiny"].labels) == 2)
    described = listed(stub)["tiny"]
    assert [(each.label, each.version) for each in described.labels] == [
        ("canary", 2),
        ("stable", 1),
    ]
    assert described.default_version == 1
    for asked in ({"model_label": "canary"}, {"model_version": 2}):
        request = prediction_pb2.GetModelRequest(model_name="tiny", **asked)
        model = stub.GetModel(request, timeout=TIMEOUT_S).model
        assert [version.version for version in model.versions] == [2]
        assert [each.label for each in model.labels] == ["canary"]
        assert model.default_version == 1


def test_a_broken_version_that_is_promoted_changes_nothing_and_is_named(
    stub: Stub, models: Path, model: Model
) -> None:
    set_label(models, "tiny", "stable", 1)
    seconds_until(lambda: answering(stub) == 1)
    published = publish_model(models.parent / "elsewhere", model)
    broken = models.parent / "elsewhere" / "tiny" / str(published.metadata.version)
    (broken / "weights.npz").write_bytes(b"nothing of ours")
    broken.rename(models / "tiny" / "3")
    set_label(models, "tiny", "stable", 3)
    took_s = seconds_until(lambda: bool(listed(stub)["tiny"].quarantined_versions))
    assert took_s < SOON_S
    (quarantined,) = listed(stub)["tiny"].quarantined_versions
    assert quarantined.version == 3
    assert quarantined.reason.startswith("expected the SHA-256 ")
    assert answering(stub) == 1
    assert answering(stub, model_label="stable") == 1
    with pytest.raises(grpc.RpcError, match="version 3 .* it failed its checks: expected the SHA"):
        answering(stub, model_version=3)


def test_a_version_that_is_deleted_leaves_soon(stub: Stub, models: Path) -> None:
    shutil.rmtree(models / "tiny" / "2")
    assert seconds_until(lambda: served(stub) == {"tiny": [1]}) < SOON_S
    assert answering(stub) == 1


def test_a_file_that_is_damaged_under_a_version_that_is_served_harms_nobody(
    stub: Stub, models: Path
) -> None:
    path = weights_path(models, "tiny", 2)
    whole = path.read_bytes()
    for content in (b"", whole[:100], bytes(len(whole))):
        path.write_bytes(content)
        for _ in range(50):
            assert answering(stub) == 2


def test_a_request_that_was_accepted_is_answered_by_the_version_it_was_accepted_for(
    start_server: StartServer, models: Path
) -> None:
    server = start_server(reload=MANUAL)
    assert server.lifecycle is not None
    request = prediction_pb2.PredictRequest(model_name="tiny", images=IMAGE)
    messages, data = server.app.messages, request.SerializeToString()
    accepted = messages.parse_predict(data, RequestRecord()).model
    shutil.rmtree(models / "tiny" / "2")
    server.lifecycle.controller.reload()
    assert messages.parse_predict(data, RequestRecord()).model.metadata.version == 1
    assert accepted.metadata.version == 2
    images: Any = np.zeros((1, 6), np.uint8)
    assert len(accepted.classify([images], Workspace()).labels) == 1


def test_a_stream_goes_on_while_versions_come_and_go(
    stub: Stub, models: Path, publish: Publish
) -> None:
    answered: list[int] = []

    def requests() -> Iterator[prediction_pb2.PredictStreamRequest]:
        while 3 not in answered:
            yield prediction_pb2.PredictStreamRequest(model_name="tiny", images=IMAGE)
            threading.Event().wait(PAUSE_S)

    for response in stub.PredictStream(requests(), timeout=TIMEOUT_S):
        answered += [response.model_version]
        if len(answered) == 20:
            publish("tiny", versions=1)
            shutil.rmtree(models / "tiny" / "2")
    assert answered == sorted(answered)
    assert set(answered) == {2, 3}


def test_a_server_that_started_with_nothing_tells_callers_to_try_again_until_it_is_ready(
    start_server: StartServer, models: Path, publish: Publish
) -> None:
    shutil.rmtree(models)
    server = start_server()
    request = prediction_pb2.PredictRequest(images=IMAGE)
    with grpc.insecure_channel(server.address) as channel:
        stub, health = Stub(channel), health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        alive = health.Check(health_pb2.HealthCheckRequest(service=LIVENESS), timeout=TIMEOUT_S)
        assert alive.status == health_pb2.HealthCheckResponse.SERVING
        assert served(stub) == {}
        for call in (
            lambda: stub.Predict(request, timeout=TIMEOUT_S),
            lambda: stub.GetModel(prediction_pb2.GetModelRequest(), timeout=TIMEOUT_S),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "no model is served yet" in str(caught.value.details())
        publish("tiny", versions=1)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert stub.Predict(request, timeout=TIMEOUT_S).model_version == 1
        shutil.rmtree(models / "tiny" / "1")
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


def test_by_hand_nothing_changes_until_it_is_asked_for(
    start_server: StartServer, models: Path, publish: Publish
) -> None:
    server = start_server(reload=MANUAL)
    assert "watcher" not in {thread.name for thread in threading.enumerate()}
    assert server.lifecycle is not None
    publish("tiny", versions=1)
    set_label(models, "tiny", "stable", 1)
    with grpc.insecure_channel(server.address) as channel:
        stub = Stub(channel)
        assert answering(stub) == 2
        server.lifecycle.controller.load("tiny", 3)
        assert served(stub) == {"tiny": [3, 2, 1]}
        assert answering(stub) == 3
        server.lifecycle.controller.reload()
        assert answering(stub) == 1


class Published:
    """Versions of tiny that differ, and what each of them answers to ``IMAGE``."""

    def __init__(self, models: Path, model: Model) -> None:
        self._models = models
        self._model = model
        self._answers: dict[int, npt.NDArray[np.float32]] = {}

    def publish(self, number: int) -> None:
        first, last = self._model.network.layers
        bias = last.bias.copy()
        bias[0] += 0.1 * number
        network = Network((first, replace(last, bias=bias)))
        scaled = self._model.metadata.input.scale(np.frombuffer(IMAGE.data, np.uint8)[np.newaxis])
        # Before it is there, so that no answer comes unexpected.
        self._answers[number] = network.probabilities(scaled)[0].astype(np.float32)
        published = publish_model(self._models, Model(network, self._model.metadata))
        assert published.metadata.version == number

    def check(self, answer: prediction_pb2.PredictResponse) -> None:
        found = np.frombuffer(answer.probabilities, "<f4")
        np.testing.assert_allclose(found, self._answers[answer.model_version], rtol=0, atol=1e-6)


def ask_until(ended: threading.Event, address: str, published: Published) -> int:
    """Ask one request after the other, check each answer, and return how many there were."""
    request = prediction_pb2.PredictRequest(model_name="tiny", images=IMAGE)
    count = 0
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        while not ended.is_set():
            published.check(Stub(channel).Predict(request, timeout=TIMEOUT_S))
            count += 1
    return count


@pytest.mark.exhaustive
def test_no_request_fails_or_is_answered_wrongly_while_versions_come_and_go(
    start_server: StartServer, models: Path, model: Model
) -> None:
    shutil.rmtree(models)
    published = Published(models, model)
    published.publish(1)
    published.publish(2)
    set_label(models, "tiny", "stable", 1)
    server = start_server()
    ended = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask_until, ended, server.address, published) for _ in range(3)]
        for number in range(3, 15):
            published.publish(number)
            set_label(models, "tiny", "stable", number)
            if number % 3 == 0:
                roll_back(models, "tiny", "stable")
            if number % 4 == 0:
                weights_path(models, "tiny", number).write_bytes(b"")
            if number > 8:
                shutil.rmtree(models / "tiny" / str(number - 6))
            ended.wait(0.3)
        ended.set()
        assert sum(each.result() for each in asking) > 100
