"""Admission: the limit on open requests, over all endpoints and on either adapter."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.model.compiled import Classified, CompiledModel, Images, Workspace
from mlpserve.server.errors import OverloadedError
from mlpserve.server.security.admission import Admission
from mlpserve.server.security.tokens import new_token
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.telemetry.metrics import QUEUE_ROWS
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

SERVICE = "/mlpserve.v1.PredictionService/"
TIMEOUT_S = 60.0
ONE_IMAGE = prediction_pb2.ImageBatch(
    count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
)
REQUEST = prediction_pb2.PredictRequest(images=ONE_IMAGE)
STREAMED = prediction_pb2.PredictStreamRequest(images=ONE_IMAGE)
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
StartServer = Callable[..., Server]
Metadata = tuple[tuple[str, str | bytes], ...]


class OpenCalls:
    """Calls that have arrived and wait for their callers to send the request.

    Args:
        channel: Over which they come.
        count: How many.
        method: What they call.
        metadata: What is sent along.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        count: int,
        *,
        method: str = "Predict",
        metadata: Metadata | None = None,
    ) -> None:
        self._go = Event()
        opened: Any = channel.stream_stream(SERVICE + method)
        self.calls = [
            opened(self._requests(), timeout=TIMEOUT_S, metadata=metadata) for _ in range(count)
        ]

    def answers(self) -> int:
        """Send the requests, and return how many answers there are."""
        self._go.set()
        return sum(len(list(call)) for call in self.calls)

    def cancel(self) -> None:
        """Go without having sent any."""
        for call in self.calls:
            call.cancel()
        self._go.set()

    def _requests(self) -> Iterator[bytes]:
        self._go.wait(TIMEOUT_S)
        yield REQUEST.SerializeToString()


@contextmanager
def connection(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, OWN_CONNECTION) as channel:
        # What waits for a connection may be sent in any order, what comes later is not.
        grpc.channel_ready_future(channel).result(TIMEOUT_S)
        yield channel


def predict(channel: grpc.Channel, metadata: Metadata | None = None) -> Any:
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    return stub.Predict(REQUEST, timeout=TIMEOUT_S, metadata=metadata)


def refusal(call: Callable[[], object]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, caught.value
    return caught.value


def wait_until_answered(channel: grpc.Channel) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            predict(channel)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
        else:
            return
    pytest.fail("no place became free")


def test_what_is_over_the_limit_is_refused_at_once_and_what_was_accepted_is_answered(
    start_server: StartServer,
) -> None:
    server = start_server(max_concurrent_requests=8)
    with connection(server) as channel:
        accepted = OpenCalls(channel, 4)
        began_s = time.monotonic()
        refused = refusal(lambda: predict(channel))
        assert time.monotonic() - began_s < TIMEOUT_S / 2
        assert refused.details() == (
            "the server is busy: 4 of at most 8 requests are open, 4 of them yours, and one caller "
            "may have no more than are left for others; try again later"
        )
        assert ("grpc-retry-pushback-ms", "200") in refused.trailing_metadata()
        assert accepted.answers() == 4
        wait_until_answered(channel)


def test_callers_that_go_give_their_places_back(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=8)
    with connection(server) as channel:
        for _ in range(5):
            left = OpenCalls(channel, 4)
            refusal(lambda: predict(channel))
            left.cancel()
            wait_until_answered(channel)


def test_a_call_that_is_refused_takes_no_place(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=1)
    with connection(server) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(prediction_pb2.PredictRequest(), timeout=TIMEOUT_S)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        predict(channel)


def test_one_token_cannot_take_the_places_of_another(
    start_server: StartServer, tmp_path: Path
) -> None:
    tokens, lines = zip(*(new_token(name) for name in ("greedy", "modest")), strict=True)
    (tmp_path / "tokens").write_text("\n".join(lines))
    server = start_server(max_concurrent_requests=8, token_file=tmp_path / "tokens")
    greedy, modest = ((("authorization", f"Bearer {token}"),) for token in tokens)
    with connection(server) as channel:
        accepted = OpenCalls(channel, 40, metadata=greedy)
        refusal(lambda: predict(channel, greedy))
        for _ in range(10):
            predict(channel, modest)
        accepted.cancel()


def test_one_connection_cannot_take_the_places_of_another(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=8)
    with connection(server) as greedy, connection(server) as modest:
        accepted = OpenCalls(greedy, 40)
        refusal(lambda: predict(greedy))
        for _ in range(10):
            predict(modest)
        accepted.cancel()


@pytest.mark.parametrize("adapter", ["public API"])
def test_a_token_is_one_caller_in_the_queue_over_however_many_connections(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, line = new_token("greedy")
    (tmp_path / "tokens").write_text(line)
    server = start_server(max_queue_rows=4, token_file=tmp_path / "tokens", request_threads=8)
    metadata = (("authorization", f"Bearer {token}"),)
    classify, has_started, go = CompiledModel.classify, Event(), Event()

    def held(self: CompiledModel, batches: Sequence[Images], workspace: Workspace) -> Classified:
        has_started.set()
        assert go.wait(TIMEOUT_S)
        return classify(self, batches, workspace)

    monkeypatch.setattr(CompiledModel, "classify", held)
    with connection(server) as one, connection(server) as another:
        stub = prediction_pb2_grpc.PredictionServiceStub(one)
        calls = [stub.Predict.future(REQUEST, timeout=TIMEOUT_S, metadata=metadata)]
        assert has_started.wait(TIMEOUT_S)
        calls += [
            stub.Predict.future(REQUEST, timeout=TIMEOUT_S, metadata=metadata) for _ in range(4)
        ]
        while server.metrics("it")[QUEUE_ROWS.name] != [([], 4)]:  # the test's limit ends it
            pass
        refused = refusal(lambda: predict(another, metadata))
        assert "4 images wait, 4 of them yours" in refused.details()
        go.set()
        assert [call.code().name for call in calls] == ["OK"] * 5


def test_health_is_told_and_a_call_of_another_kind_refused_where_there_is_no_room(
    start_server: StartServer,
) -> None:
    server = start_server(max_concurrent_requests=1)
    with connection(server) as channel:
        accepted = OpenCalls(channel, 1)
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        asked = prediction_pb2.ListModelsRequest()
        refusal(lambda: stub.ListModels(asked, timeout=TIMEOUT_S))
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status == 1
        assert accepted.answers() == 1


def test_a_stream_counts_as_the_batches_that_it_may_have_in_flight(
    start_server: StartServer,
) -> None:
    server = start_server(max_concurrent_requests=6, max_stream_batches=4)
    with connection(server) as channel:
        first = OpenCalls(channel, 1, method="PredictStream")
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        refused = refusal(lambda: list(stub.PredictStream(iter([STREAMED]), timeout=TIMEOUT_S)))
        assert "4 of at most 6 requests are open" in refused.details()
        assert first.answers() == 1


@pytest.mark.parametrize("adapter", ["fast lane"])
def test_of_a_flood_that_comes_while_a_network_runs_the_rest_gets_our_sentence_too(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(max_concurrent_requests=64)
    classify, has_started, go = CompiledModel.classify, Event(), Event()

    def held(self: CompiledModel, batches: Sequence[Images], workspace: Workspace) -> Classified:
        has_started.set()
        assert go.wait(TIMEOUT_S)
        return classify(self, batches, workspace)

    monkeypatch.setattr(CompiledModel, "classify", held)
    with connection(server) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        calls = [stub.Predict.future(REQUEST, timeout=3 * TIMEOUT_S)]
        assert has_started.wait(TIMEOUT_S)
        calls += [stub.Predict.future(REQUEST, timeout=3 * TIMEOUT_S) for _ in range(4000)]
        go.set()
        told = {(call.code(), "of at most 64 requests" in (call.details() or "")) for call in calls}
    assert told == {(grpc.StatusCode.OK, False), (grpc.StatusCode.UNAVAILABLE, True)}


def test_http_has_the_same_places(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=1, http_port=0)

    def asked(path: str) -> tuple[int, Any, str | None]:
        address = f"http://127.0.0.1:{server.http_port}/v2{path}"
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
                return response.status, json.load(response), None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers["grpc-retry-pushback-ms"]

    assert [asked("")[0] for _ in range(3)] == [200] * 3
    with connection(server) as channel:
        accepted = OpenCalls(channel, 1)
        refusal(lambda: predict(channel))
        code, answer, pushback = asked("")
        assert (code, pushback) == (503, "200")
        assert "1 of at most 1 requests are open, 0 of them yours" in answer["error"]
        assert asked("/health/live")[0] == 200
        assert accepted.answers() == 1


def test_callers_have_no_more_than_is_left_for_others() -> None:
    admission = Admission(ServerConfig(max_concurrent_requests=9))

    def taken(caller: str) -> int:
        for count in range(10):
            try:
                admission.enter(None, caller)
            except OverloadedError:
                return count
        pytest.fail("there was no end")

    assert [taken("first"), taken("second"), taken("third")] == [5, 2, 1]
    admission.leave("first")
    assert taken("fourth") == 1
