"""A server with all endpoints open, and images for it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.server.server import Server


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """Return a server that takes up to 64 images a request, over gRPC and HTTP."""
    return start_server(max_batch_images=64, max_batch_rows=128, http_port=0)


@pytest.fixture
def http_address(server: Server) -> str:
    """Return where the server answers HTTP."""
    assert server.http is not None
    return f"127.0.0.1:{server.http.port}"


@pytest.fixture
def images() -> npt.NDArray[np.uint8]:
    """Return five images of 2 x 3."""
    return np.random.default_rng(8).integers(0, 256, (5, 2, 3), np.uint8)
