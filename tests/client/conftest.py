"""Fixtures of the client's tests: a client, and servers that answer what a test wants."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from mlpserve.client import Client
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2_grpc
from warm_parent import WarmParent

Handler = Callable[[Any, grpc.ServicerContext], Any]


@pytest.fixture(scope="session")
def warm_client() -> Iterator[WarmParent]:
    """Return what runs the command without its imports for each."""
    with WarmParent(["mlpserve.client.__main__"]) as parent:
        yield parent


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """Return a client of the server of the tiny model."""
    with Client(server.address) as opened:
        yield opened


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Return a function that serves some rpcs by the given functions, and returns the target.

    A real gRPC server with gRPC's own limits, whose answers are the test's.
    """
    servers: list[grpc.Server] = []

    def start(**handlers: Handler) -> str:
        methods = {name: staticmethod(handler) for name, handler in handlers.items()}
        servicer = type("Servicer", (prediction_pb2_grpc.PredictionServiceServicer,), methods)()
        server = grpc.server(ThreadPoolExecutor(8))
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()
