"""Our client for event loops calls Ray Serve as it calls our server."""

from collections.abc import Iterator

import pytest

from contract import contract
from mlpserve.client import Client
from ray_application import RayServer

_OTHER = "it needs a server of the test's own, or none"
_OF_WAITING = "test_where_nothing_listens_waiting_ends_at_the_deadline_and_says_what_was_found"

globals().update(
    contract(
        "client/test_async_client.py",
        leave_out={
            "test_a_deadline_ends_a_call_and_a_stream": _OTHER,
            "test_a_caller_who_is_cancelled_cancels_the_call_at_the_server": _OTHER,
            "test_closing_the_client_ends_calls_with_an_error_that_says_so": _OTHER,
            _OF_WAITING: _OTHER,
        },
    )
)


@pytest.fixture
def client(server: RayServer) -> Iterator[Client]:
    with Client(server.address) as opened:
        yield opened
