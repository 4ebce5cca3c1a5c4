"""Our client calls Ray Serve as it calls our server."""

from collections.abc import Iterator

import pytest

from contract import contract
from mlpserve.client import Client
from ray_application import RayServer

_OTHER = "it needs a server of the test's own"
_OF_CLOSING = (
    "test_a_call_that_is_under_way_when_the_client_is_closed_ends_with_an_error_that_says_so"
)

globals().update(
    contract(
        "client/test_client.py",
        leave_out={
            "test_many_images_come_back_in_their_order": _OTHER,
            "test_all_parts_of_a_large_call_are_asked_of_the_version_that_answered_first": _OTHER,
            "test_large_images_are_split_so_that_each_request_passes_grpcs_default_limit": _OTHER,
            "test_an_image_that_the_transport_refuses_is_an_invalid_request": _OTHER,
            "test_a_model_must_be_named_where_several_are_served": _OTHER,
            _OF_CLOSING: _OTHER,
            "test_each_client_has_a_connection_of_its_own": _OTHER,
            "test_calls_go_round_all_servers_of_the_target": _OTHER,
        },
    )
)


@pytest.fixture
def client(server: RayServer) -> Iterator[Client]:
    with Client(server.address) as opened:
        yield opened
