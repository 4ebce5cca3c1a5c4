"""Requests of the Open Inference Protocol are counted, and known by an id, as all others are."""

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.oip import inference_pb2 as pb
from mlpserve.server.server import Server
from mlpserve.server.telemetry.metrics import BATCH_ROWS, REQUESTS
from mlpserve.server.telemetry.snapshots import Value
from oip_calls import call, infer, raw_request

TIMEOUT_S = 60.0
INFER = "/v2/models/tiny/infer"
ROUTE = "POST /v2/models/{name}/infer"
Post = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture
def post(http_address: str) -> Iterator[Post]:
    """Return a function that sends JSON to a path."""
    opened = http.client.HTTPConnection(http_address, timeout=TIMEOUT_S)

    def send(path: str, body: Any, **headers: str) -> http.client.HTTPResponse:
        opened.request("POST", path, json.dumps(body).encode(), headers)
        response = opened.getresponse()
        response.read()
        return response

    yield send
    opened.close()


def counted(server: Server, requests: int) -> dict[tuple[str, ...], Value]:
    """Return how many requests there were by their labels, as soon as so many are counted."""
    while True:  # the test's own limit of time ends it otherwise
        found = {tuple(labels): count for labels, count in server.metrics("server")[REQUESTS.name]}
        if len(found) >= requests:
            return found


def test_requests_are_counted_by_rpc_and_by_path(
    server: Server, channel: grpc.Channel, post: Post, images: npt.NDArray[np.uint8]
) -> None:
    infer(channel, raw_request(images))
    call(channel, "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
    with pytest.raises(grpc.RpcError):
        infer(channel, raw_request(images, model_name="invented"))
    tensor = {"name": "images", "datatype": "UINT8", "shape": [5, 2, 3], "data": images.tolist()}
    assert post(INFER, {"inputs": [tensor]}).status == 200
    assert post("/v2/models/invented/infer", {"inputs": [tensor]}).status == 404
    assert counted(server, 5) == {
        ("ModelInfer", "tiny", "2", "OK"): 1,
        ("ServerLive", "", "", "OK"): 1,
        ("ModelInfer", "", "", "NOT_FOUND"): 1,
        (ROUTE, "tiny", "2", "OK"): 1,
        (ROUTE, "", "", "NOT_FOUND"): 1,
    }
    (_, rows), *_ = server.metrics("server")[BATCH_ROWS.name]
    assert isinstance(rows, list)
    assert rows[-1] == 2 * len(images)


def test_who_is_refused_over_http_gets_the_id_of_the_request(post: Post) -> None:
    for given in ({"x-request-id": "mine"}, {}):
        response = post("/v2/models/invented/infer", {}, **given)
        found = response.headers["mlpserve-request-id"]
        assert found == given.get("x-request-id", found)
        assert len(found) == (4 if given else 16)
