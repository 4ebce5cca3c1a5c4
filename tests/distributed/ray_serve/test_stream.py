"""Streams of our client over Ray Serve are as those over our server."""

from collections.abc import Iterator

import pytest

from contract import contract
from mlpserve.client import Client
from ray_application import RayServer

_OTHER = "it needs a server of the test's own"
_OF_DEADLINES = (
    "test_a_stream_that_the_server_ends_at_the_deadline_is_a_timeout_and_no_fault_of_the_server"
)

globals().update(
    contract(
        "client/test_stream.py",
        leave_out={
            "test_the_server_sees_a_stream_cancelled_that_its_caller_leaves": _OTHER,
            "test_a_server_that_answers_too_few_or_too_many_batches_is_at_fault": _OTHER,
            "test_a_server_that_ends_a_stream_before_its_batches_is_at_fault": _OTHER,
            "test_a_stream_is_given_up_after_five_calls_that_bring_no_answer": _OTHER,
            _OF_DEADLINES: _OTHER,
        },
    )
)


@pytest.fixture
def client(server: RayServer) -> Iterator[Client]:
    with Client(server.address) as opened:
        yield opened
