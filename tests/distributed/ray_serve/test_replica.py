"""Replicas without a cluster: what they look after themselves."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlpserve.server.errors import StartError
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2 as pb
from ray_application import wait_until

Start = Callable[..., Any]


class Context:
    """A call whose caller sent nothing along, and is told nothing."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


def version_of(replica: Any) -> int:
    """Return which version a replica answers by."""
    images = pb.ImageBatch(count=1, data_type=pb.DATA_TYPE_UINT8, data=bytes(6))
    request = pb.PredictRequest(images=images).SerializeToString()
    found = asyncio.run(replica.Predict((request, None), grpc_context=Context()))
    return pb.PredictResponse.FromString(found.SerializeToString()).model_version


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that makes replicas; they end when the test does."""
    # It imports Ray Serve, which `ray_application` has done without its warnings.
    from mlpserve.server.ray_serve.replica import Replica  # noqa: PLC0415

    made: list[Any] = []

    def start_replica(**settings: Any) -> Any:
        made.append(Replica(ServerConfig(**settings).to_plain()))
        return made[-1]

    yield start_replica
    for each in made:
        each.__del__()


def test_replicas_of_a_node_share_one_copy_of_a_store_and_all_follow_it(
    start: Start, models: Path, publish: Callable[..., None], tmp_path: Path
) -> None:
    publish("tiny", versions=1)
    store = {"models": f"file://{models}", "cache": tmp_path / "cache", "store_period_s": 0.1}
    replicas = [start(**store) for _ in range(2)]
    wait_until(lambda: [version_of(each) for each in replicas] == [1, 1], "it is not served")
    publish("tiny", versions=1)
    wait_until(lambda: [version_of(each) for each in replicas] == [2, 2], "it is not followed")
    replicas[0].__del__()  # whichever has copied so far, the other has to now
    publish("tiny", versions=1)
    wait_until(lambda: version_of(replicas[1]) == 3, "the copy is followed no more")


def test_a_replica_whose_models_are_a_file_does_not_start(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "models"
    file.write_text("")
    with pytest.raises(StartError, match="models: expected a folder, got a file"):
        start(models=file)
