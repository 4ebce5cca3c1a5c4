"""Versions by their labels, asked of a server that follows a models folder."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.client import Client, InvalidRequestError, NotFoundError, ShadowInfo
from mlpserve.model.folder import weights_path
from mlpserve.model.labels import set_label
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2
from warm_parent import WarmParent

Predict = Callable[..., subprocess.CompletedProcess[str]]
TIMEOUT_S = 20.0
IMAGES = np.zeros((5, 2, 3), np.uint8)


@pytest.fixture
def predict(warm_client: WarmParent) -> Predict:
    """Return a function that runs the command against a server."""

    def run(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mlpserve.client", "--target", target, *arguments]
        return warm_client.run(command, timeout_s=60)

    return run


def spoilt_model(
    _: prediction_pb2.GetModelRequest, __: grpc.ServicerContext
) -> prediction_pb2.GetModelResponse:
    """Answer as a server whose only version has failed its checks."""
    broken = prediction_pb2.QuarantinedVersion(version=1, reason="it is spoilt")
    model = prediction_pb2.Model(name="tiny", quarantined_versions=[broken])
    return prediction_pb2.GetModelResponse(model=model)


@pytest.fixture
def server(models: Path, publish: Callable[..., None]) -> Iterator[Server]:
    """Return a running server of four versions: 1 is stable, 2 is canary, 3 is broken."""
    publish("tiny", versions=4)
    for label, version in (("stable", 1), ("canary", 2), ("broken", 3)):
        set_label(models, "tiny", label, version)
    weights_path(models, "tiny", 3).write_bytes(b"spoilt")
    running = Server(ServerConfig(models=models, port=0))
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize(
    ("asked", "version"),
    [({}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2), ({"version": 4}, 4)],
    ids=str,
)
def test_version_that_is_asked_for_answers_and_else_the_default_label_s(
    client: Client, asked: dict[str, Any], version: int
) -> None:
    assert client.predict(IMAGES, **asked).model_version == version
    assert client.predict(IMAGES, max_images_per_request=2, **asked).model_version == version
    answers = list(client.predict_stream([IMAGES, IMAGES], **asked))
    assert [answer.model_version for answer in answers] == [version, version]


def test_model_is_described_with_its_labels_and_what_is_quarantined(client: Client) -> None:
    (model,) = client.models()
    assert model == client.model()
    assert model.labels == {"canary": 2, "stable": 1}
    assert model.default_version == 1
    assert list(model.quarantined_versions) == [3]
    assert "the file was changed after it was published" in model.quarantined_versions[3]
    described = client.model(label="canary")
    assert [version.version for version in described.versions] == [2]


def test_model_is_described_with_how_its_shadow_does(
    models: Path, publish: Callable[..., None]
) -> None:
    publish("tiny", versions=2)
    set_label(models, "tiny", "stable", 2)
    set_label(models, "tiny", "canary", 1)
    running = Server(ServerConfig(models=models, port=0, shadow="canary"))
    running.start()
    deadline_s = time.monotonic() + TIMEOUT_S
    with Client(running.address) as client:
        client.predict(IMAGES)
        while (shadow := client.model().shadow) is None or shadow.compared_images < len(IMAGES):
            assert time.monotonic() < deadline_s
    running.stop()
    assert shadow == ShadowInfo("canary", 1, len(IMAGES), len(IMAGES), 0, 0)


def test_model_without_a_shadow_has_none(client: Client) -> None:
    assert client.model().shadow is None


def test_label_that_is_not_there_is_said(client: Client) -> None:
    for label in ("beta", "broken"):
        for call in (
            lambda label=label: client.predict(IMAGES, label=label),
            lambda label=label: list(client.predict_stream([IMAGES], label=label)),
            lambda label=label: client.model(label=label),
        ):
            with pytest.raises(NotFoundError, match=f"model_label: .*'{label}'"):
                call()


def test_label_beside_a_version_is_refused(client: Client) -> None:
    message = "label: expected either a version or a label, got version 2 and label 'canary'"
    for call in (
        lambda: client.predict(IMAGES, version=2, label="canary"),
        lambda: list(client.predict_stream([IMAGES], version=2, label="canary")),
        lambda: client.model(version=2, label="canary"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            call()
        assert str(refused.value) == message


@pytest.mark.parametrize(
    ("flags", "version"),
    [([], 1), (["--label", "canary"], 2), (["--version", "4"], 4)],
    ids=["neither", "label", "version"],
)
def test_command_asks_for_the_version_that_its_flags_name(
    predict: Predict, server: Server, tmp_path: Path, flags: list[str], version: int
) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    done = predict(server.address, *flags, "--output", "jsonl", str(tmp_path / "images.npy"))
    assert done.stderr == ""
    assert {json.loads(line)["version"] for line in done.stdout.splitlines()} == {version}


def test_command_takes_a_version_or_a_label_and_not_both(predict: Predict, server: Server) -> None:
    done = predict(server.address, "--version", "2", "--label", "canary", "images.npy")
    assert done.returncode == 2
    assert "argument --label: not allowed with argument --version" in done.stderr


def test_command_says_why_nothing_is_served(
    predict: Predict, serve: Callable[..., str], tmp_path: Path
) -> None:
    target = serve(GetModel=spoilt_model)
    np.save(tmp_path / "images.npy", IMAGES)
    done = predict(target, str(tmp_path / "images.npy"))
    assert done.returncode == 1
    assert done.stderr == (
        "mlpserve-predict: model: no version of 'tiny' is served: it is spoilt\n"
    )


def test_label_that_no_message_can_hold_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="label: expected valid Unicode text"):
        client.predict(IMAGES, label="\udcff")


def test_all_requests_of_one_call_are_of_the_version_that_the_label_meant_at_first(
    serve: Callable[..., str],
) -> None:
    asked = []

    def predict(
        request: prediction_pb2.PredictRequest, _: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        asked.append((request.model_version, request.model_label))
        return prediction_pb2.PredictResponse(
            model_name="tiny",
            # The label means another version with each request.
            model_version=request.model_version or 6 + len(asked),
            probabilities=np.ones(1, "<f4").tobytes(),
            labels=bytes(4),
        )

    with Client(serve(Predict=predict)) as client:
        found = client.predict(IMAGES, label="canary", max_images_per_request=1)
    assert found.model_version == 7
    assert asked == [(0, "canary"), *[(7, "")] * 4]


def test_model_of_which_nothing_can_be_served_is_described(serve: Callable[..., str]) -> None:
    with Client(serve(GetModel=spoilt_model)) as client:
        model = client.model("tiny")
    assert (model.versions, model.default_version) == ((), 0)
    assert model.quarantined_versions == {1: "it is spoilt"}
