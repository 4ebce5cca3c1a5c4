"""The HTTP endpoint, as curl and any HTTP library see it."""

import contextlib
import gzip
import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import trustme
from PIL import Image

from mlpserve.model.compiled import CompiledModel
from mlpserve.server.errors import StartError
from mlpserve.server.oip.http.limits import MAX_CONNECTIONS
from mlpserve.server.security.tokens import new_token
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.system.ports import listening_sockets
from mlpserve.server.telemetry.metrics import QUEUE_ROWS
from oip_calls import infer, raw_outputs, raw_request

EXAMPLES = Path(__file__).parents[3] / "examples"
TIMEOUT_S = 60.0
INFER = "/v2/models/tiny/infer"
LENGTH = "Inference-Header-Content-Length"
Images = npt.NDArray[np.uint8]
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def connection(http_address: str) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection(http_address, timeout=TIMEOUT_S)
    yield opened
    opened.close()


@pytest.fixture
def ask(connection: http.client.HTTPConnection) -> Ask:
    """Return a function that sends a request, and returns the status and the JSON."""

    def send(path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request("GET" if data is None else "POST", path, data, dict(headers or {}))
        response = connection.getresponse()
        content = response.read()
        if response.headers["content-type"] == "application/octet-stream":
            return response.status, (int(response.headers[LENGTH]), content)
        return response.status, json.loads(content or b"null")

    return send


def described(images: npt.NDArray[Any], datatype: str = "UINT8", **fields: Any) -> dict[str, Any]:
    tensor = {"name": "images", "datatype": datatype, "shape": list(images.shape), **fields}
    return tensor if fields else {**tensor, "data": images.tolist()}


def test_json_is_answered_with_the_bits_of_model_infer(
    ask: Ask, server: Server, images: Images
) -> None:
    status, answer = ask(INFER, {"id": "seven", "inputs": [described(images)]})
    assert (status, answer["id"], answer["model_version"]) == (200, "seven", "2")
    found = {each["name"]: each for each in answer["outputs"]}
    assert (found["probabilities"]["datatype"], found["probabilities"]["shape"]) == ("FP32", [5, 3])
    with grpc.insecure_channel(server.address) as channel:
        same = raw_outputs(infer(channel, raw_request(images)))
    for name, dtype in (("probabilities", "<f4"), ("labels", "<i4")):
        assert np.array(found[name]["data"], dtype).tobytes() == same[name]


@pytest.mark.parametrize("is_binary", [False, True])
def test_attributions_come_when_they_are_named(
    ask: Ask, server: Server, images: Images, *, is_binary: bool
) -> None:
    parameters = {"steps": 4, "class": 1}
    named = {"name": "attributions", "parameters": {**parameters, "binary_data": is_binary}}
    status, answer = ask(INFER, {"inputs": [described(images)], "outputs": [named]})
    assert status == 200
    request = raw_request(images)
    asked = request.outputs.add(name="attributions")
    for name, value in parameters.items():
        asked.parameters[name].int64_param = value
    with grpc.insecure_channel(server.address) as channel:
        same = raw_outputs(infer(channel, request))["attributions"]
    if is_binary:
        length, content = answer
        assert content[length:] == same
    else:
        (tensor,) = answer["outputs"]
        assert (tensor["datatype"], tensor["shape"]) == ("FP32", [5, 6])
        assert np.array(tensor["data"], "<f4").tobytes() == same


def test_lists_may_be_nested_or_flat(ask: Ask, images: Images) -> None:
    nested = ask(INFER, {"inputs": [described(images)]})
    flat = ask(INFER, {"inputs": [described(images, data=images.ravel().tolist())]})
    assert nested == flat
    assert nested[0] == 200


def test_binary_values_follow_the_json_on_the_way_in_and_out(
    ask: Ask, server: Server, images: Images
) -> None:
    tensor = described(images, parameters={"binary_data_size": images.nbytes})
    asked = {"inputs": [tensor], "outputs": [{"name": "labels"}, {"name": "probabilities"}]}
    text = json.dumps({**asked, "parameters": {"binary_data_output": True}}).encode()
    status, (length, content) = ask(INFER, text + images.tobytes(), {LENGTH: str(len(text))})
    assert status == 200
    sizes = [each["parameters"] for each in json.loads(content[:length])["outputs"]]
    assert sizes == [{"binary_data_size": 20}, {"binary_data_size": 60}]
    with grpc.insecure_channel(server.address) as channel:
        same = raw_outputs(infer(channel, raw_request(images)))
    assert content[length:] == same["labels"] + same["probabilities"]


def test_a_body_may_be_nothing_but_pixels(ask: Ask, images: Images) -> None:
    assert ask(INFER, images.tobytes(), {LENGTH: "0"}) == ask(
        INFER, {"inputs": [described(images)]}
    )


def test_the_example_is_the_picture_beside_it() -> None:
    (tensor,) = json.loads((EXAMPLES / "digit.json").read_text())["inputs"]
    with Image.open(EXAMPLES / "digit.png") as picture:
        assert tensor["data"] == np.asarray(picture).tolist()
    assert tensor["shape"] == [1, 28, 28]


def test_the_paths_answer_what_the_rpcs_do(ask: Ask) -> None:
    assert ask("/v2/health/live") == (200, {"live": True})
    assert ask("/v2/health/ready") == (200, {"ready": True})
    assert ask("/v2")[1]["name"] == "mlpserve"
    assert ask("/v2/models/tiny/ready") == (200, {"name": "tiny", "ready": True})
    assert ask("/v2/models/tiny/versions/7/ready") == (404, {"name": "tiny", "ready": False})
    status, metadata = ask("/v2/models/tiny/versions/1")
    assert (status, metadata["versions"]) == (200, ["2", "1"])
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 6]}]
    assert [each["version"] for each in ask("/v2/models/stats")[1]["model_stats"]] == ["2", "1"]
    assert ask("/v2/repository/index", {"ready": True})[1][0]["state"] == "READY"


def test_an_optional_member_that_is_null_is_as_if_absent(ask: Ask, images: Images) -> None:
    tensor = described(images)
    expected = ask(INFER, {"inputs": [tensor]})
    nulls = {"id": None, "outputs": None, "parameters": None}
    found = ask(INFER, {**nulls, "inputs": [{**tensor, "parameters": None}]})
    assert expected[0] == 200
    assert found == expected
    assert ask("/v2/repository/index", {"ready": None, "parameters": None})[0] == 200
    assert ask(INFER, {"inputs": None})[0] == 400


def test_browsers_may_call_from_the_origins_that_the_setting_names_and_no_others(
    start_server: Callable[..., Server],
) -> None:
    origin, other = "https://app.example", "https://evil.example"

    def allowed(server: Server, asks_from: str) -> str | None:
        assert server.http is not None
        asking = {"Origin": asks_from, "Access-Control-Request-Method": "POST"}
        connection = http.client.HTTPConnection(f"127.0.0.1:{server.http.port}", timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("OPTIONS", INFER, headers=asking)
            return connection.getresponse().headers["Access-Control-Allow-Origin"]

    open_to_one = start_server(http_port=0, http_allowed_origins=f"{origin} http://localhost:3000")
    assert allowed(open_to_one, origin) == origin
    assert allowed(open_to_one, other) is None
    assert allowed(start_server(http_port=0), origin) is None


@pytest.mark.parametrize("text", ["app.example", "https://app.example/page", "https://a b", "null"])
def test_what_is_no_origin_is_refused_at_start(text: str, models: Path) -> None:
    settings: Any = {"http_allowed_origins": text}  # a text, as flags and variables are
    with pytest.raises(StartError, match="http_allowed_origins: expected origins as "):
        ServerConfig(models=models, **settings)


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_version_in_the_path_answers(ask: Ask, images: Images, version: str) -> None:
    path = f"/v2/models/tiny/versions/{version}/infer"
    assert ask(path, {"inputs": [described(images)]})[1]["model_version"] == version


def test_what_cannot_be_answered_is_a_status_and_a_sentence(ask: Ask, images: Images) -> None:
    good = described(images)
    ragged = described(images, data=[[1, 2], 3])
    binary = described(images, parameters={"binary_data_size": 7})
    halves = described(images, "FP16", data=[0.5] * 30)
    for path, body, headers, status, message in (
        ("/v2/models/huge/infer", {"inputs": [good]}, {}, 404, "Request for unknown model: 'huge'"),
        ("/v2/models/tiny/versions/7/infer", {"inputs": [good]}, {}, 404, "version '7'"),
        ("/v2/models/tiny/versions/-7/infer", {"inputs": [good]}, {}, 400, "version string '-7'"),
        (INFER, {"inputs": [{**good, "shape": [5, 7]}]}, {}, 400, "unexpected shape for input"),
        (INFER, {"inputs": []}, {}, 400, "expected 1 inputs but got 0 inputs"),
        (INFER, {"inputs": [good] * 2}, {}, 400, "expected 1 inputs but got 2 inputs"),
        (INFER, {"inputs": [{**good, "shape": ["5"]}]}, {}, 400, "shape: expected a list of whole"),
        (INFER, {"inputs": [{**good, "data": ["5"] * 30}]}, {}, 400, "data: expected numbers of"),
        (INFER, {"inputs": [ragged]}, {}, 400, "lists of the same depth"),
        (INFER, {"inputs": [halves]}, {}, 400, "there is no JSON of FP16"),
        (INFER, {"inputs": [binary]}, {}, 400, "binary_data_size: expected the 0 bytes"),
        (INFER, {"inputs": [good], "outputs": [{"name": "\ud800"}]}, {}, 400, "inference output"),
        (INFER, {"inputs": [good], "parameters": {"sequence_id": 1}}, {}, 501, "sequence_id"),
        (INFER, b"{", {}, 400, "failed to parse the request JSON buffer"),
        (INFER, b"{}", {LENGTH: "3"}, 400, f"{LENGTH}: expected"),
        (INFER, b"{}", {"Content-Encoding": "br"}, 501, "Content-Encoding: expected gzip"),
        (INFER, b"{}", {"Content-Encoding": "gzip"}, 400, "not compressed as"),
        (INFER, None, {}, 405, "Method Not Allowed"),
        ("/v2/models/tiny/learn", b"{}", {}, 404, "Not Found"),
        ("/v2/repository/models/tiny/load", b"", {}, 503, "is not allowed on this server"),
    ):
        found, answer = ask(path, body, headers)
        assert (found, message in answer["error"]) == (status, True), (message, found, answer)
    assert ask(INFER, {"inputs": [good]})[0] == 200


def test_a_body_that_is_too_long_is_refused_before_it_is_read(
    connection: http.client.HTTPConnection,
) -> None:
    connection.putrequest("POST", INFER)
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()  # and nothing more is sent
    response = connection.getresponse()
    assert response.status == 413
    assert "body: expected at most" in json.loads(response.read())["error"]


def test_a_body_that_grows_too_long_is_refused_however_it_is_sent(
    connection: http.client.HTTPConnection,
) -> None:
    bomb = gzip.compress(bytes(100 * 1024 * 1024))
    connection.request("POST", INFER, bomb, {"Content-Encoding": "gzip"})
    response = connection.getresponse()
    assert response.status == 413
    response.read()


def test_tokens_are_asked_for_as_over_grpc(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    token, line = new_token("caller")
    (tmp_path / "tokens").write_text(line)
    server = start_server(http_port=0, token_file=tmp_path / "tokens")
    assert server.http is not None
    opened = http.client.HTTPConnection("127.0.0.1", server.http.port, timeout=TIMEOUT_S)
    for path, headers, status in (
        ("/v2/models/tiny", {}, 401),
        ("/v2/models/tiny", {"Authorization": "Bearer wrong"}, 401),
        ("/v2/models/tiny", {"Authorization": f"Bearer {token}"}, 200),
        ("/v2/health/ready", {}, 200),
    ):
        opened.request("GET", path, headers=headers)
        response = opened.getresponse()
        response.read()
        assert response.status == status
    opened.close()


def test_with_a_certificate_only_tls_is_spoken(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    server = start_server(http_port=0, tls_certificate=certificate, tls_key=key)
    assert server.http is not None
    context = ssl.create_default_context()
    authority.configure_trust(context)
    opened: http.client.HTTPConnection = http.client.HTTPSConnection(
        "localhost", server.http.port, timeout=TIMEOUT_S, context=context
    )
    opened.request("GET", "/v2/health/live")
    assert opened.getresponse().status == 200
    opened.close()
    plain = http.client.HTTPConnection("localhost", server.http.port, timeout=TIMEOUT_S)
    plain.request("GET", "/v2/health/live")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        plain.getresponse()
    plain.close()


def test_a_port_that_is_taken_is_an_error_at_start(
    models: Path, tiny_models: None, server: Server
) -> None:
    assert server.http is not None
    with pytest.raises(StartError, match="cannot listen on 127.0.0.1"):
        Server(ServerConfig(models=models, port=0, http_port=server.http.port))


def test_answers_are_not_held_back_until_the_caller_acknowledges_a_part() -> None:
    # asyncio asks for that where the socket says that it is of TCP; it is 40 ms an answer.
    for opened in listening_sockets("127.0.0.1", 0, shares_port=False):
        assert opened.proto == socket.IPPROTO_TCP
        opened.close()


def test_http_is_off_unless_it_is_asked_for(start_server: Callable[..., Server]) -> None:
    assert start_server().http is None


def test_who_leaves_before_its_turn_is_not_computed(
    server: Server, http_address: str, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    computing, may_end, sizes = threading.Event(), threading.Event(), []
    answers = CompiledModel.answers

    def held(model: CompiledModel, batches: Any, *others: Any) -> Any:
        sizes.append(sum(map(len, batches)))
        computing.set()
        may_end.wait(TIMEOUT_S)
        return answers(model, batches, *others)

    monkeypatch.setattr(CompiledModel, "answers", held)
    assert server.http is not None
    connections = server.http._server.server_state.connections  # noqa: SLF001 - to see them go

    opened_ones: list[http.client.HTTPConnection] = []

    def asking(count: int) -> http.client.HTTPConnection:
        opened = http.client.HTTPConnection(http_address, timeout=TIMEOUT_S)
        opened_ones.append(opened)
        body = json.dumps({"inputs": [described(images[:count])]})
        opened.request("POST", INFER, body.encode())
        return opened

    waits = asking(1)
    computing.wait(TIMEOUT_S)
    leaves = [asking(count) for count in (2, 3)]
    while server.metrics("it")[QUEUE_ROWS.name] != [([], 5)]:  # the test's limit of time ends it
        pass
    for each in leaves:
        each.close()
    while len(connections) > 1:
        pass
    live = http.client.HTTPConnection(http_address, timeout=TIMEOUT_S)
    for _ in range(2):  # by then the event loop has told all that wait for it
        live.request("GET", "/v2/health/live")
        assert live.getresponse().read()
    live.close()
    may_end.set()
    assert waits.getresponse().read()
    asking(4).getresponse().read()
    for each in opened_ones:
        each.close()
    assert sizes == [1, 4]


@pytest.mark.parametrize("adapter", ["fast lane"])
def test_an_idle_connection_is_closed_when_the_setting_says_and_not_before(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(http_port=0, http_keep_alive_s=1.0)
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        asked_s = time.monotonic()
        for _ in range(2):
            connection.request("GET", "/v2/health/live")
            assert connection.getresponse().read() == b'{"live":true}'
        assert connection.sock.recv(1) == b""
        assert time.monotonic() - asked_s > 0.9  # its clock is coarse


@pytest.mark.parametrize("adapter", ["fast lane"])
def test_bodies_that_do_not_come_keep_nobody_from_asking_for_health(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(http_port=0)
    assert server.http is not None
    address = "127.0.0.1", server.http.port
    tasks = server.http._server.server_state.tasks  # noqa: SLF001 - to see them come
    head = f"POST {INFER} HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{{".encode()
    with contextlib.ExitStack() as held:
        for _ in range(MAX_CONNECTIONS):
            slow = held.enter_context(socket.create_connection(address, TIMEOUT_S))
            slow.sendall(head)
        while len(tasks) < MAX_CONNECTIONS - 1:  # the test's limit of time ends it
            pass
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/tiny"):
            asked = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
            asked.request("GET", path)
            assert asked.getresponse().status == 200
            asked.close()


@pytest.mark.skipif(sys.platform != "linux", reason="has a second address of its own")
def test_who_has_many_connections_loses_them_before_who_has_one(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(http_port=0)
    assert server.http is not None
    address = "127.0.0.1", server.http.port
    idle = http.client.HTTPConnection(*address, timeout=TIMEOUT_S, source_address=("127.0.0.2", 0))
    with contextlib.closing(idle), contextlib.ExitStack() as held:
        idle.request("GET", "/v2")
        idle.getresponse().read()
        for _ in range(MAX_CONNECTIONS):
            slow = held.enter_context(socket.create_connection(address, TIMEOUT_S))
            slow.sendall(f"POST {INFER} HTTP/1.1\r\nHost: here\r\n".encode())
        last = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
        last.request("GET", "/v2")
        assert last.getresponse().status == 200  # so all before it were accepted
        last.close()
        idle.request("GET", "/v2")
        assert idle.getresponse().status == 200
