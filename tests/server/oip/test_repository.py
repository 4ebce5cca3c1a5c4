"""Models that come and go, as clients of the protocol see them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.folder import weights_path
from mlpserve.model.labels import set_label
from mlpserve.oip import inference_pb2 as pb
from mlpserve.server.server import Server
from mlpserve.server.settings.config import MANUAL
from oip_calls import call, infer, raw_request, refusal

Publish = Callable[..., None]
Images = npt.NDArray[np.uint8]


@pytest.fixture
def server(start_server: Callable[..., Server], models: Path, publish: Publish) -> Server:
    """Return a server of tiny 1 to 3, "stable" is 2 and "canary" 3, that may be told to load."""
    publish("tiny", versions=1)
    set_label(models, "tiny", "stable", 2)
    set_label(models, "tiny", "canary", 3)
    return start_server(allow_management=True, reload=MANUAL)


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


def index(channel: grpc.Channel, *, ready: bool = False) -> list[tuple[str, str, str]]:
    asked = pb.RepositoryIndexRequest(ready=ready)
    found = call(channel, "RepositoryIndex", asked, pb.RepositoryIndexResponse).models
    assert all(bool(each.reason) == (each.state == "UNAVAILABLE") for each in found)
    return [(each.name, each.version, each.state) for each in found]


def load(channel: grpc.Channel, **fields: Any) -> None:
    asked = pb.RepositoryModelLoadRequest(**fields)
    call(channel, "RepositoryModelLoad", asked, pb.RepositoryModelLoadResponse)


def unload(channel: grpc.Channel, **fields: Any) -> None:
    asked = pb.RepositoryModelUnloadRequest(**fields)
    call(channel, "RepositoryModelUnload", asked, pb.RepositoryModelUnloadResponse)


def is_ready(channel: grpc.Channel, name: str, version: str = "") -> bool:
    asked = pb.ModelReadyRequest(name=name, version=version)
    ready: bool = call(channel, "ModelReady", asked, pb.ModelReadyResponse).ready
    return ready


def test_a_version_may_be_a_label_and_the_default_is_that_of_stable(
    channel: grpc.Channel, images: Images
) -> None:
    for asked, answered in (("", "2"), ("stable", "2"), ("canary", "3"), ("3", "3")):
        assert infer(channel, raw_request(images, model_version=asked)).model_version == answered
        assert is_ready(channel, "tiny", asked)
    assert not is_ready(channel, "tiny", "nightly")
    code, details = refusal(lambda: infer(channel, raw_request(images, model_version="nightly")))
    assert code == "NOT_FOUND"
    assert "'tiny' version 'nightly' is not found" in details


def test_models_are_loaded_and_unloaded(
    channel: grpc.Channel, publish: Publish, images: Images
) -> None:
    publish("more", versions=1)
    assert not is_ready(channel, "more")
    load(channel, model_name="more")
    assert is_ready(channel, "more")
    assert infer(channel, raw_request(images, model_name="more")).model_version == "1"
    unload(channel, model_name="more")
    assert not is_ready(channel, "more")
    assert refusal(lambda: infer(channel, raw_request(images, model_name="more")))[0] == "NOT_FOUND"
    load(channel, model_name="more")
    assert is_ready(channel, "more")


def test_a_version_that_fails_its_checks_is_listed_with_the_reason(
    channel: grpc.Channel, models: Path, publish: Publish
) -> None:
    publish("more", versions=2)
    weights_path(models, "more", 2).write_bytes(b"nonsense")
    load(channel, model_name="more")
    assert index(channel) == [
        ("more", "1", "READY"),
        ("tiny", "3", "READY"),
        ("tiny", "2", "READY"),
        ("more", "2", "UNAVAILABLE"),
    ]
    assert ("more", "2", "UNAVAILABLE") not in index(channel, ready=True)


def test_what_cannot_be_loaded_is_refused(channel: grpc.Channel) -> None:
    for change, fields, code in (
        (load, {"model_name": "huge"}, "NOT_FOUND"),
        (load, {"model_name": "../tiny"}, "INVALID_ARGUMENT"),
        (load, {"model_name": ""}, "INVALID_ARGUMENT"),
        (load, {"model_name": "tiny", "repository_name": "other"}, "UNIMPLEMENTED"),
        (
            load,
            {
                "model_name": "tiny",
                "parameters": {"config": pb.ModelRepositoryParameter(string_param="{}")},
            },
            "UNIMPLEMENTED",
        ),
        (unload, {"model_name": "huge"}, "NOT_FOUND"),
    ):
        assert refusal(lambda change=change, fields=fields: change(channel, **fields))[0] == code  # type: ignore[misc]


def test_a_server_without_models_is_live_but_not_ready(
    start_server: Callable[..., Server], models: Path, images: Images
) -> None:
    shutil.rmtree(models)
    server = start_server(reload=MANUAL)
    with grpc.insecure_channel(server.address) as channel:
        assert call(channel, "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
        asked = pb.ServerReadyRequest()
        assert not call(channel, "ServerReady", asked, pb.ServerReadyResponse).ready
        assert not is_ready(channel, "tiny")
        assert index(channel) == []
        assert refusal(lambda: infer(channel, raw_request(images)))[0] == "UNAVAILABLE"
