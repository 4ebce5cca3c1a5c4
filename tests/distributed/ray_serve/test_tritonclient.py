"""Unmodified tritonclient calls Ray Serve as it calls our server, over gRPC."""

from collections.abc import Iterator
from typing import Any

import pytest

from contract import contract
from ray_application import RayServer

_HTTP = "it compares with HTTP, over which Ray Serve answers nothing of ours"

adopted = contract(
    "server/oip/test_tritonclient.py",
    leave_out={
        "test_every_transport_gives_the_same_bits": _HTTP,
        "test_the_server_and_its_models_describe_themselves": _HTTP,
        "test_advertised_is_what_is_implemented": _HTTP,
        "test_statistics_are_true": _HTTP,
        "test_the_repository_lists_its_models_and_loads_none_unless_allowed": _HTTP,
        "test_asyncio_clients_are_answered": _HTTP,
    },
)
globals().update(adopted)


@pytest.fixture
def transport(server: RayServer) -> Iterator[tuple[Any, Any]]:
    """Return the module for gRPC, and a client of it."""
    module = adopted["triton_grpc"]
    with module.InferenceServerClient(server.address) as client:
        yield module, client


def test_the_server_and_its_models_describe_themselves_over_grpc(over_grpc: Any) -> None:
    assert over_grpc.is_server_live()
    assert over_grpc.is_server_ready()
    assert over_grpc.is_model_ready("tiny", "1")
    assert not over_grpc.is_model_ready("huge")
    assert list(over_grpc.get_model_metadata("tiny").versions) == ["2", "1"]
    assert over_grpc.get_model_config("tiny").config.max_batch_size == 64
    index = over_grpc.get_model_repository_index().models
    assert [(each.name, each.version) for each in index] == [("tiny", "2"), ("tiny", "1")]
    with pytest.raises(adopted["InferenceServerException"], match="explicit model load / unload"):
        over_grpc.load_model("tiny")
