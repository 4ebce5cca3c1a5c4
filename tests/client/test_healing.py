"""Connections and servers that go away and come: how long callers notice anything of it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, Final

import grpc
import numpy as np
import pytest

from fake_dns import FakeDns
from forgetful_proxy import ForgetfulProxy
from mlpserve.client import AsyncClient, Client, ClientError, HealthStatus, UnavailableError
from mlpserve.client.proxies import described, is_loopback
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.server.grpc_api import transport
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2

IMAGES: Final = np.zeros((2, 6), np.uint8)
WAIT_S: Final = 20.0
QUICK_MS: Final = 200
PROXY: Final = "http://somebody:secret@127.0.0.1:9"  # where nothing listens
StartServer = Callable[..., Server]


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients and servers do in tenths of a second what takes seconds."""
    monkeypatch.setattr("mlpserve.client.channel._PING_AFTER_MS", QUICK_MS)
    monkeypatch.setattr("mlpserve.client.channel._PING_TIMEOUT_MS", QUICK_MS)
    monkeypatch.setattr("mlpserve.client.channel._DNS_PAUSE_MS", QUICK_MS)
    monkeypatch.setattr(transport, "_MIN_PING_PERIOD_MS", QUICK_MS // 2)


@pytest.fixture
def start_server(tmp_path: Path, model: Model) -> Iterator[StartServer]:
    """Return a function that starts a server of one model, by whose name its answers are known."""
    with ExitStack() as stack:

        def start(name: str = "a", **settings: Any) -> Server:
            publish_model(tmp_path / name, Model(model.network, replace(model.metadata, name=name)))
            config: dict[str, Any] = {"models": tmp_path / name, "port": 0}
            server = Server(ServerConfig(**(config | settings)))
            server.start()
            stack.callback(server.stop)
            return server

        yield start


class AwaitedClient:
    """An ``AsyncClient`` that is called as a ``Client`` is."""

    def __init__(self, target: str) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(target)

    def predict(self, images: np.ndarray[Any, Any], **options: Any) -> Any:
        return self._runner.run(self._client.predict(images, **options))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


both_clients = pytest.mark.parametrize("make_client", [Client, AwaitedClient])


def answering(client: Client) -> set[str]:
    """Return the servers that answer some calls."""
    return {client.predict(IMAGES, timeout_s=WAIT_S).model_name for _ in range(12)}


@contextmanager
def closing_server(server: Server) -> Iterator[None]:
    try:
        yield
    finally:
        server.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s


@both_clients
def test_a_connection_in_use_that_is_lost_silently_costs_a_call_no_more_than_a_ping(
    start_server: StartServer, quick_pings: None, make_client: Callable[[str], Any]
) -> None:
    with (
        ForgetfulProxy(start_server().port) as proxy,
        closing(make_client(proxy.address)) as client,
    ):
        for _ in range(20):
            client.predict(IMAGES)
        assert proxy.forget() == 1
        assert len(client.predict(IMAGES, timeout_s=WAIT_S)) == 2
        assert proxy.accepted == 2


@both_clients
def test_a_connection_at_rest_that_is_lost_silently_is_replaced_before_the_next_call(
    start_server: StartServer, quick_pings: None, make_client: Callable[[str], Any]
) -> None:
    with (
        ForgetfulProxy(start_server().port) as proxy,
        closing(make_client(proxy.address)) as client,
    ):
        client.predict(IMAGES)  # right after whose answer the connection is forgotten
        assert proxy.forget() == 1
        until(lambda: proxy.accepted == 2)
        client.predict(IMAGES, timeout_s=WAIT_S)
        assert proxy.accepted == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("at_rest", [False, True], ids=["in-use", "at-rest"])
def test_a_silent_loss_is_mended_within_ten_seconds_by_pings_that_the_server_allows(
    start_server: StartServer, *, at_rest: bool
) -> None:
    with (
        ForgetfulProxy(start_server(max_connection_age_s=0).port) as proxy,
        Client(proxy.address) as client,
    ):
        client.predict(IMAGES)
        ends_s = time.monotonic() + 32
        while time.monotonic() < ends_s:
            if at_rest:
                Event().wait(ends_s - time.monotonic())
            else:
                client.predict(IMAGES)
        assert proxy.accepted == 1  # the server did not mind the pings
        proxy.forget()
        started_s = time.monotonic()
        client.predict(IMAGES, timeout_s=30)
        assert time.monotonic() - started_s < 20  # and not the 30 of the call


@pytest.mark.exhaustive
def test_a_server_that_allows_fewer_pings_costs_no_call(
    serve: Callable[..., str],
) -> None:
    def predict(request: Any, context: grpc.ServicerContext) -> prediction_pb2.PredictResponse:
        count = request.images.count
        return prediction_pb2.PredictResponse(
            model_name="m", model_version=1, probabilities=bytes(8 * count), labels=bytes(4 * count)
        )

    # gRPC's own limit is one in five minutes; the third that is too early closes the connection.
    with Client(serve(Predict=predict)) as client:
        for _ in range(3):
            client.predict(IMAGES)
            Event().wait(20)
            client.predict(IMAGES)


def test_servers_that_a_name_gains_get_their_share_and_those_that_it_loses_get_nothing_more(
    start_server: StartServer, quick_pings: None
) -> None:
    port = start_server("a", host="127.0.0.1", max_connection_age_s=0.5).port
    start_server("b", host="127.0.0.2", port=port, max_connection_age_s=0.5)
    with FakeDns("127.0.0.1") as dns, Client(dns.target(port)) as client:
        assert answering(client) == {"a"}
        dns.addresses = "127.0.0.1", "127.0.0.2"
        until(lambda: answering(client) == {"a", "b"})
        dns.addresses = ("127.0.0.2",)
        until(lambda: answering(client) == {"b"})


def test_a_server_that_does_not_serve_is_sent_nothing_until_it_does(
    start_server: StartServer, tmp_path: Path, model: Model
) -> None:
    (tmp_path / "b").mkdir()
    first, second = start_server("a"), Server(ServerConfig(models=tmp_path / "b", port=0))
    second.start()
    with closing_server(second), Client(f"ipv4:{first.address},{second.address}") as client:
        for _ in range(30):  # without retries, of which there are not as many
            assert client.predict(IMAGES).model_name == "a"
        publish_model(tmp_path / "b", Model(model.network, replace(model.metadata, name="b")))
        until(lambda: answering(client) == {"a", "b"})


@pytest.mark.parametrize("checks_health", [None, False, True])
def test_the_health_of_a_server_that_does_not_serve_can_be_asked_for(
    tmp_path: Path, *, checks_health: bool | None
) -> None:
    server = Server(ServerConfig(models=tmp_path, port=0))
    server.start()
    with (
        closing_server(server),
        Client(f"ipv4:{server.address}", checks_health=checks_health) as client,
    ):
        assert client.health() is HealthStatus.NOT_SERVING
        with pytest.raises(UnavailableError):
            client.predict(IMAGES, timeout_s=5)


def test_after_a_fork_the_error_says_what_to_do(start_server: StartServer) -> None:
    script = """
import os, sys
import numpy as np
from mlpserve.client import AsyncClient, Client, ClientError

client = Client(sys.argv[1])
client.predict(np.zeros((1, 6), np.uint8))
child = os.fork()
if child == 0:
    for attempt in lambda: client.models(), lambda: Client(sys.argv[1]):
        try:
            attempt()
        except ClientError as error:
            print(error, flush=True)
    client.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
client.predict(np.zeros((1, 6), np.uint8))  # which goes on in the parent
"""
    command = [sys.executable, "-c", script, start_server().address]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    used, made = ran.stdout.splitlines()
    assert "expected a call from the process that made the client" in used
    assert "make a client in each process" in used
    assert "fork before the first client is made" in made
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in made


def test_no_proxy_stands_between_a_program_and_its_own_machine(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    server = start_server()
    for target in f"localhost:{server.port}", server.address, f"ipv4:127.0.0.1:{server.port}":
        with Client(target) as client:
            assert len(client.predict(IMAGES)) == 2


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_an_error_names_the_proxy_that_the_call_went_through_without_its_password(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, PROXY)
    with Client("digits.example:50051") as client, pytest.raises(ClientError) as caught:
        client.predict(IMAGES, timeout_s=0.3)
    assert str(caught.value).startswith(
        f"digits.example:50051 (through the proxy 127.0.0.1:9 of {variable}; to go around it, put "
        "the host into no_proxy): "
    )


@pytest.mark.parametrize("exception", ["digits.example", ".example", "a.b, example"])
def test_a_host_that_is_exempt_from_the_proxy_is_named_without_it(
    monkeypatch: pytest.MonkeyPatch, exception: str
) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("no_proxy", exception)
    assert described("digits.example:50051") == "digits.example:50051"
    assert "through the proxy" in described("dns:///digits.test:50051")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        *[(target, True) for target in ("localhost:1", "127.3.2.1:1", "[::1]:1", "unix:/a")],
        *[(target, True) for target in ("dns:///localhost:1", "ipv4:127.0.0.1:1,127.0.0.2:1")],
        *[(target, False) for target in ("ipv4:127.0.0.1:1,10.0.0.1:1", "localhost.example:1")],
    ],
)
def test_targets_on_this_machine_are_known(target: str, *, expected: bool) -> None:
    assert is_loopback(target) is expected
