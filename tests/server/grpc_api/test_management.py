"""Models are loaded and unloaded from afar, in one process and in several."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from mlpserve.model.folder import weights_path
from mlpserve.model.labels import set_label
from mlpserve.server.server import Server
from mlpserve.server.settings.config import MANUAL, ServerConfig
from mlpserve.v1 import (
    model_management_pb2,
    model_management_pb2_grpc,
    prediction_pb2,
    prediction_pb2_grpc,
)

TIMEOUT_S = 60.0

Publish = Callable[..., None]
RunServer = Callable[..., AbstractContextManager[Any]]


class Managed:
    """A server that answers the management rpcs, called over many connections.

    Args:
        address: Where it listens.
    """

    def __init__(self, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [grpc.insecure_channel(address, options) for _ in range(6)]
        self.stubs = [
            model_management_pb2_grpc.ModelManagementServiceStub(channel)
            for channel in self.channels
        ]

    def load(self, name: str, version: int = 0, *, by: int = 0) -> prediction_pb2.Model:
        request = model_management_pb2.LoadModelRequest(model_name=name, model_version=version)
        return self.stubs[by].LoadModel(request, timeout=TIMEOUT_S).model

    def unload(self, name: str, version: int = 0, *, by: int = 0) -> None:
        request = model_management_pb2.UnloadModelRequest(model_name=name, model_version=version)
        self.stubs[by].UnloadModel(request, timeout=TIMEOUT_S)

    def reload(self, *, by: int = 0) -> dict[str, list[int]]:
        request = model_management_pb2.ReloadModelsRequest()
        return versions(self.stubs[by].ReloadModels(request, timeout=TIMEOUT_S).models)

    @property
    def served(self) -> dict[str, list[int]]:
        """Return what is served, over whichever connection one asks."""
        request = prediction_pb2.ListModelsRequest()
        found = [
            versions(
                prediction_pb2_grpc.PredictionServiceStub(channel)
                .ListModels(request, timeout=TIMEOUT_S)
                .models
            )
            for channel in self.channels
        ]
        assert all(each == found[0] for each in found)
        return found[0]

    @property
    def health(self) -> set[int]:
        """Return what those who ask for the server's health are told."""
        asked = health_pb2.HealthCheckRequest()
        stubs = [health_pb2_grpc.HealthStub(channel) for channel in self.channels]
        return {int(stub.Check(asked, timeout=TIMEOUT_S).status) for stub in stubs}


def versions(models: Any) -> dict[str, list[int]]:
    return {model.name: [version.version for version in model.versions] for model in models}


ONE_PROCESS, TWO_WORKERS = "one process", "two workers"
# Where what several processes do together is in question.
with_workers_always = pytest.mark.parametrize("managed", [ONE_PROCESS, TWO_WORKERS], indirect=True)


@pytest.fixture(params=[ONE_PROCESS, pytest.param(TWO_WORKERS, marks=pytest.mark.exhaustive)])
def managed(
    request: pytest.FixtureRequest, run_server: RunServer, models: Path, publish: Publish
) -> Iterator[Managed]:
    """Return a server of digits 1 to 3 and letters 1 that looks only when it is told to."""
    publish("digits", versions=3)
    publish("letters", versions=1)
    with ExitStack() as stack:
        if request.param == ONE_PROCESS:
            config = ServerConfig(models=models, port=0, reload=MANUAL, allow_management=True)
            own = Server(config)
            own.start()
            stack.callback(own.stop)
            managed = Managed(own.address)
        else:
            flags = ("--workers", "2", "--reload", "manual", "--allow-management")
            server = stack.enter_context(run_server(*flags))
            stack.callback(server.stop)
            managed = Managed(server.address)
        for channel in managed.channels:
            stack.callback(channel.close)
        yield managed


@with_workers_always
def test_a_version_is_loaded_beside_the_others_and_unloaded_again(managed: Managed) -> None:
    assert managed.served == {"digits": [3, 2], "letters": [1]}
    assert versions([managed.load("digits", 1)]) == {"digits": [3, 2, 1]}
    assert managed.served == {"digits": [3, 2, 1], "letters": [1]}
    managed.unload("digits", 3)
    assert managed.served["digits"] == [2, 1]
    managed.unload("letters")
    assert "letters" not in managed.served
    assert versions([managed.load("letters")]) == {"letters": [1]}
    assert versions([managed.load("digits")]) == {"digits": [3, 2]}  # what the policy chooses
    assert managed.served == {"digits": [3, 2], "letters": [1]}


def test_a_server_of_which_all_is_unloaded_is_not_ready_until_something_is_loaded(
    managed: Managed,
) -> None:
    managed.unload("digits")
    managed.unload("letters")
    assert managed.health == {health_pb2.HealthCheckResponse.NOT_SERVING}
    managed.load("letters", by=1)
    assert managed.health == {health_pb2.HealthCheckResponse.SERVING}


def test_the_folder_is_looked_into_when_somebody_says_so_and_not_before(
    managed: Managed, models: Path, publish: Publish
) -> None:
    publish("digits", versions=1)
    set_label(models, "digits", "old", 1)
    shutil.rmtree(models / "letters")
    assert managed.served == {"digits": [3, 2], "letters": [1]}
    assert managed.reload() == {"digits": [4, 3, 1]}
    assert managed.served == {"digits": [4, 3, 1]}


def test_what_cannot_be_done_is_refused_and_what_was_served_still_is(
    managed: Managed, models: Path, publish: Publish
) -> None:
    publish("digits", versions=1)
    path = weights_path(models, "digits", 4)
    path.write_bytes(path.read_bytes()[:-1])
    for refused, status, message in (
        (lambda: managed.load("../digits"), "INVALID_ARGUMENT", "model_name: expected the name"),
        (lambda: managed.load("digits", -1), "INVALID_ARGUMENT", "model_version: expected a pos"),
        (lambda: managed.load("words"), "NOT_FOUND", "model 'words'"),
        (lambda: managed.load("digits", 5), "NOT_FOUND", "version 5 of model 'digits'"),
        (lambda: managed.load("digits", 4), "FAILED_PRECONDITION", "expected the SHA-256"),
        (lambda: managed.unload("digits", 4), "NOT_FOUND", "version 4 of model 'digits'"),
        (lambda: managed.unload("words"), "NOT_FOUND", "model 'words'"),
    ):
        with pytest.raises(grpc.RpcError) as failure:
            refused()
        assert f"StatusCode.{status}" in str(failure.value)
        assert message in str(failure.value)
        assert str(models) not in str(failure.value)
    assert managed.served == {"digits": [3, 2], "letters": [1]}


def test_bytes_that_are_no_request_are_refused(managed: Managed) -> None:
    for method in ("LoadModel", "UnloadModel", "ReloadModels"):
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = managed.channels[0].unary_unary(
            f"/mlpserve.v1.ModelManagementService/{method}"
        )
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            call(b"\xff", timeout=TIMEOUT_S)


@with_workers_always
def test_calls_at_once_over_all_connections_are_done_one_after_another(managed: Managed) -> None:
    def change(number: int) -> None:
        for _ in range(5):
            managed.load("digits", 1, by=number)
            managed.reload(by=number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    assert managed.served["digits"] == [3, 2, 1]


def test_reflection_names_the_service_where_it_is_answered(managed: Managed) -> None:
    known = ProtoReflectionDescriptorDatabase(managed.channels[0]).get_services()
    assert "mlpserve.v1.ModelManagementService" in known


def test_nobody_manages_a_server_that_does_not_allow_it(
    run_server: RunServer, tiny_models: None
) -> None:
    with run_server("--workers", "1") as server:
        managed = Managed(server.address)
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            managed.reload()
        known = ProtoReflectionDescriptorDatabase(managed.channels[0]).get_services()
        assert "mlpserve.v1.ModelManagementService" not in known
        for channel in managed.channels:
            channel.close()
        server.stop()
