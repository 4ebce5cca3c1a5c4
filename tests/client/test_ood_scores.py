"""Out-of-distribution scores as programs get them: both clients, streams, the fake server."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.client import (
    AsyncClient,
    Client,
    ClientError,
    InvalidRequestError,
    Predictions,
    ServerFaultError,
)
from mlpserve.client.testing import FakeServer
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2

DARK = np.random.default_rng(1).integers(0, 60, (3, 2, 3), np.uint8)
BRIGHT = np.random.default_rng(4).integers(180, 220, (90, 2, 3), np.uint8)[:3]
IMAGES = np.concatenate([DARK, BRIGHT])


@pytest.fixture
def tiny_models(models: Path, scored_model: Model) -> None:
    publish(models, scored_model)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(input_shape=(2, 3)) as server:
        yield server


def test_images_unlike_those_that_were_learned_are_told_apart(
    client: Client, scored_model: Model
) -> None:
    found = client.predict(IMAGES, ood_scores=True)
    assert found.out_of_distribution.tolist() == [True, True, True, False, False, False]
    spec, detector = scored_model.metadata.input, scored_model.detector
    assert detector is not None
    assert found.ood_scores is not None
    expected = detector.scores(IMAGES, found.probabilities, spec)
    np.testing.assert_allclose(found.ood_scores, expected, rtol=1e-3, atol=1e-3)
    assert found.ood_threshold == detector.threshold
    assert found[3:].out_of_distribution.tolist() == [False] * 3
    assert client.model().versions[0].ood_threshold == detector.threshold


def test_many_requests_of_one_call_and_streams_have_them(client: Client, server: Server) -> None:
    whole = client.predict(IMAGES, ood_scores=True)
    split = client.predict(IMAGES, ood_scores=True, max_images_per_request=4)
    assert whole.ood_scores is not None
    assert split.ood_scores is not None
    np.testing.assert_allclose(split.ood_scores, whole.ood_scores, atol=1e-3)
    streamed = [
        label
        for part in client.predict_stream([DARK, BRIGHT], ood_scores=True)
        for label in part.out_of_distribution.tolist()
    ]
    assert streamed == whole.out_of_distribution.tolist()

    async def ask() -> list[bool]:
        async with AsyncClient(server.address) as asynchronous:
            found = await asynchronous.predict(DARK, ood_scores=True)
            parts = asynchronous.predict_stream([BRIGHT], ood_scores=True, class_names=True)
            rest = [part async for part in parts]
            assert rest[0].class_names is not None
            return [*found.out_of_distribution, *rest[0].out_of_distribution]

    assert asyncio.run(ask()) == streamed


def test_calls_that_share_requests_have_what_each_asked_for(client: Client, server: Server) -> None:
    asked: dict[str, Any] = {"ood_scores": True, "class_names": True, "timings": True}

    async def ask() -> list[Predictions]:
        async with AsyncClient(server.address) as asynchronous, asynchronous.batching() as joined:
            calls = [joined.predict(IMAGES[n : n + 1], **asked) for n in range(len(IMAGES))]
            return await asyncio.gather(*calls, joined.predict(DARK))

    alone = client.batching(max_rows=len(IMAGES)).predict(IMAGES, **asked)
    *found, plain = [client.batching().predict(IMAGES, **asked), *asyncio.run(ask())]
    assert (plain.ood_scores, plain.class_names, plain.timings) == (None, None, None)
    whole, *parts = found
    assert [part.out_of_distribution.tolist() for part in parts] == [[True]] * 3 + [[False]] * 3
    for each in (alone, *found):
        assert each.class_names == client.predict(DARK, class_names=True).class_names
        assert each.timings is not None
    np.testing.assert_array_equal(whole.out_of_distribution, alone.out_of_distribution)


def test_they_are_in_every_form_of_the_answer(client: Client) -> None:
    found = client.predict(IMAGES, ood_scores=True)
    document = json.loads(json.dumps(found.to_dict()))
    assert document["out_of_distribution"] == found.out_of_distribution.tolist()
    assert found.ood_scores is not None
    assert document["ood_scores"] == found.ood_scores.tolist()
    frame = found.to_pandas()
    assert list(frame["out_of_distribution"]) == found.out_of_distribution.tolist()
    assert list(frame["ood_score"]) == found.ood_scores.tolist()


def test_who_did_not_ask_has_none_and_is_told_how_to_ask(client: Client) -> None:
    found = client.predict(IMAGES)
    assert (found.ood_scores, found.ood_threshold) == (None, None)
    assert "ood_scores" not in found.to_dict()
    with pytest.raises(ClientError, match=r"predict\(\.\.\., ood_scores=True\)"):
        _ = found.out_of_distribution


def test_a_flag_that_is_none_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="ood_scores: expected True or False") as caught:
        client.predict(IMAGES, ood_scores="yes")  # type: ignore[arg-type]
    assert caught.value.field == "ood_scores"


def test_a_version_without_a_score_is_an_error_of_the_request(tmp_path: Path, model: Model) -> None:
    publish(tmp_path / "earlier", model)
    server = Server(ServerConfig(models=tmp_path / "earlier", port=0))
    server.start()
    with Client(server.address) as client:
        with pytest.raises(InvalidRequestError, match="version 1 of model 'tiny' has no out-of-"):
            client.predict(IMAGES, ood_scores=True)
        assert client.model().versions[0].ood_threshold is None
    server.stop()


def test_a_server_of_an_earlier_release_that_sends_none_is_an_error(
    serve: Callable[..., str],
) -> None:
    with Client(serve(Predict=_answer)) as client:
        assert len(client.predict(IMAGES)) == len(IMAGES)
        with pytest.raises(ClientError, match="ood_scores: expected scores, but the server sent"):
            client.predict(IMAGES, ood_scores=True)


def test_scores_that_do_not_fit_the_images_are_a_fault_of_the_server(
    serve: Callable[..., str],
) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> prediction_pb2.PredictResponse:
        response = _answer(request, context)
        response.ood_scores = b"\0" * 7
        return response

    with (
        Client(serve(Predict=answer)) as client,
        pytest.raises(ServerFaultError, match="24 bytes of scores of 6 images, got 7"),
    ):
        client.predict(IMAGES, ood_scores=True)


def test_the_fake_server_answers_the_scores_that_a_test_wants(fake: FakeServer) -> None:
    with Client(fake.target) as client:
        assert not client.predict(IMAGES, ood_scores=True).out_of_distribution.any()
        fake.answer_ood_scores([0.5, 2])
        found = client.predict(IMAGES, ood_scores=True)
        assert found.out_of_distribution.tolist() == [False, True] * 3
        assert client.predict(IMAGES).ood_scores is None
        fake.reset()
        assert not client.predict(IMAGES, ood_scores=True).out_of_distribution.any()


def _answer(
    request: prediction_pb2.PredictRequest, _: grpc.ServicerContext
) -> prediction_pb2.PredictResponse:
    count = request.images.count
    return prediction_pb2.PredictResponse(
        model_name="tiny",
        model_version=1,
        probabilities=np.tile(np.eye(3, dtype="<f4")[0], count).tobytes(),
        labels=np.zeros(count, "<i4").tobytes(),
    )
