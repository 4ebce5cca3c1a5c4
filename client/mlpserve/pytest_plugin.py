"""Plugin of pytest: the fixture ``mlpserve_server``, for the tests of services that call one.

It is loaded wherever pytest and this library are installed, so it imports nothing until the fixture
is asked for. For the same reason it is no part of ``mlpserve.client``, which imports gRPC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpserve.client.testing import FakeServer


@pytest.fixture
def mlpserve_server() -> Iterator[FakeServer]:
    """Return a running ``mlpserve.client.testing.FakeServer`` that a tiny network answers for."""
    from mlpserve.client.testing import FakeServer  # noqa: PLC0415 - only where it is used

    with FakeServer() as server:
        yield server
