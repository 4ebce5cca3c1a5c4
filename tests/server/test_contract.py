"""The contract that both adapters keep; answers and errors themselves are in test_predict.py."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Semaphore, Thread
from typing import TypeAlias

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.model.compiled import Classified, CompiledModel, Images, Workspace
from mlpserve.model.weights import Model
from mlpserve.server.grpc_api.fast_lane import lane
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

PREDICT = "/mlpserve.v1.PredictionService/Predict"
TIMEOUT_S = 60.0
SHORT_S = 0.2
BURSTS = 5  # of which one is handed over whole, however busy the machine is

Raw: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"


class HeldPasses:
    """Holds each pass of a network until it may go on, and knows how many rows each had."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self._started, self._go = Semaphore(0), Semaphore(0)

    def wait_for_one(self) -> None:
        """Wait until a pass has started, and is held."""
        assert self._started.acquire(timeout=TIMEOUT_S)

    def let_one_go(self) -> None:
        """Let this pass go on."""
        self._go.release()

    def let_go(self) -> None:
        """Let this pass and all later ones go on."""
        self._go.release(1000)

    def hold_again(self) -> None:
        """Forget all passes, of which none runs any more, and hold the next."""
        self.rows.clear()
        self._started, self._go = Semaphore(0), Semaphore(0)

    def hold(self, batches: Sequence[Images]) -> None:
        """Hold a pass; called in its thread."""
        self.rows.append([len(images) for images in batches])
        self._started.release()
        assert self._go.acquire(timeout=TIMEOUT_S)


@pytest.fixture
def held(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldPasses]:
    """Return what holds the passes of ``server``, which is ready already."""
    passes = HeldPasses()
    classify = CompiledModel.classify

    def held_classify(
        self: CompiledModel, batches: Sequence[Images], workspace: Workspace
    ) -> Classified:
        passes.hold(batches)
        return classify(self, batches, workspace)

    monkeypatch.setattr(CompiledModel, "classify", held_classify)
    yield passes
    passes.let_go()


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> prediction_pb2_grpc.PredictionServiceStub:
    return prediction_pb2_grpc.PredictionServiceStub(channel)


def request(count: int, seed: int = 0) -> prediction_pb2.PredictRequest:
    data = np.random.default_rng(seed).integers(0, 256, (count, 6), np.uint8).tobytes()
    batch = prediction_pb2.ImageBatch(
        count=count, data_type=prediction_pb2.DATA_TYPE_UINT8, data=data
    )
    return prediction_pb2.PredictRequest(images=batch)


def answers_to(
    model: Model, asked: prediction_pb2.PredictRequest, response: prediction_pb2.PredictResponse
) -> bool:
    images = np.frombuffer(asked.images.data, np.uint8).reshape(-1, 6)
    expected = model.network.probabilities(model.metadata.input.scale(images))
    found = np.frombuffer(response.probabilities, "<f4").reshape(len(images), 3)
    return bool(np.allclose(found, expected, rtol=0, atol=1e-6))


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code: grpc.StatusCode = caught.value.code()
    return code


def test_calls_that_arrive_while_a_pass_runs_are_answered_by_the_next_one(
    stub: prediction_pb2_grpc.PredictionServiceStub, model: Model, held: HeldPasses
) -> None:
    requests = [request(1 + number % 3, seed=number) for number in range(7)]
    for _ in range(BURSTS):
        calls = [stub.Predict.future(requests[0], timeout=TIMEOUT_S)]
        held.wait_for_one()
        calls += [stub.Predict.future(asked, timeout=TIMEOUT_S) for asked in requests[1:]]
        # Calls of one connection arrive in their order, and this one does not wait for its answer.
        code_of(lambda: stub.Predict(request(1), timeout=SHORT_S))
        held.let_go()
        for asked, call in zip(requests, calls, strict=True):
            assert answers_to(model, asked, call.result())
        # On a busy machine gRPC may hand over one of the calls before the others.
        if held.rows[1] != [1]:
            break
        held.hold_again()
    assert [sorted(rows) for rows in held.rows] == [[1], [1, 1, 2, 2, 3, 3]]


def test_a_call_whose_deadline_has_passed_is_not_computed(
    stub: prediction_pb2_grpc.PredictionServiceStub, held: HeldPasses
) -> None:
    first = stub.Predict.future(request(1), timeout=TIMEOUT_S)
    held.wait_for_one()
    for _ in range(3):
        code = code_of(lambda: stub.Predict(request(2), timeout=SHORT_S))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    held.let_go()
    first.result()
    stub.Predict(request(5), timeout=TIMEOUT_S)
    assert held.rows == [[1], [5]]


def test_a_call_that_is_cancelled_is_not_computed(
    stub: prediction_pb2_grpc.PredictionServiceStub, held: HeldPasses
) -> None:
    first = stub.Predict.future(request(1), timeout=TIMEOUT_S)
    held.wait_for_one()
    cancelled = [stub.Predict.future(request(2), timeout=TIMEOUT_S) for _ in range(3)]
    for call in cancelled:
        call.cancel()
    # What a connection carries arrives in its order, and this one does not wait for its answer.
    code_of(lambda: stub.Predict(request(3), timeout=SHORT_S))
    held.let_go()
    first.result()
    stub.Predict(request(5), timeout=TIMEOUT_S)
    assert held.rows == [[1], [5]]


def test_calls_that_are_cancelled_while_others_of_their_burst_are_computed_are_not(
    stub: prediction_pb2_grpc.PredictionServiceStub,
    held: HeldPasses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As for a burst that finds the server idle: no pass before it was long.
    monkeypatch.setattr(lane, "_LONG_S", math.inf)
    for _ in range(BURSTS):
        first = stub.Predict.future(request(1), timeout=TIMEOUT_S)
        held.wait_for_one()
        burst = [stub.Predict.future(request(60), timeout=TIMEOUT_S) for _ in range(4)]
        code_of(lambda: stub.Predict(request(3), timeout=SHORT_S))  # all have arrived
        held.let_one_go()
        held.wait_for_one()
        for call in burst:
            call.cancel()
        code_of(lambda: stub.Predict(request(3), timeout=SHORT_S))  # so has this
        held.let_go()
        first.result()
        stub.Predict(request(5), timeout=TIMEOUT_S)
        # No more than 128 are joined. On a busy machine gRPC may hand over one call of the burst
        # before the others, which is then computed by itself: it was no burst.
        if held.rows[1] != [60]:
            break
        held.hold_again()
    assert held.rows == [[1], [60, 60], [5]]


def explain_request(count: int) -> prediction_pb2.ExplainRequest:
    """Return a request that counts as eight rows an image."""
    return prediction_pb2.ExplainRequest(images=request(count).images, steps=8)


@pytest.fixture
def server_of_small_passes(start_server: Callable[..., Server]) -> Server:
    return start_server(max_batch_images=64, max_batch_rows=16)


def test_a_prediction_behind_an_explanation_waits_for_one_pass(
    server_of_small_passes: Server, held: HeldPasses
) -> None:
    with grpc.insecure_channel(server_of_small_passes.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(BURSTS):
            explained = stub.Explain.future(explain_request(8), timeout=TIMEOUT_S)
            held.wait_for_one()
            predicted = stub.Predict.future(request(1), timeout=TIMEOUT_S)
            code_of(lambda: stub.Predict(request(3), timeout=SHORT_S))  # the other has arrived
            held.let_go()
            assert predicted.result().model_version == 2
            assert len(explained.result().classes) == 8 * 4
            # On a busy machine gRPC may hand over the call only after the next pass has begun.
            if held.rows[1] == [1]:
                break
            held.hold_again()
    assert held.rows == [[2], [1], [2], [2], [2]]


def test_explanations_of_one_kind_go_through_the_network_together_and_others_do_not(
    server_of_small_passes: Server, held: HeldPasses
) -> None:
    other = explain_request(1)
    other.steps = 5
    requests = [other, explain_request(1), explain_request(1)]
    with grpc.insecure_channel(server_of_small_passes.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(BURSTS):
            first = stub.Predict.future(request(1), timeout=TIMEOUT_S)
            held.wait_for_one()
            calls = [stub.Explain.future(asked, timeout=TIMEOUT_S) for asked in requests]
            code_of(lambda: stub.Predict(request(3), timeout=SHORT_S))  # the others have arrived
            held.let_go()
            assert first.result().model_version == 2
            assert [len(call.result().classes) for call in calls] == [4, 4, 4]
            if len(held.rows) == 3:  # as above
                break
            held.hold_again()
    assert sorted(held.rows) == [[1], [1], [1, 1]]


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["deadline", "cancelled"])
def test_what_is_left_of_an_explanation_that_nobody_waits_for_is_not_computed(
    server_of_small_passes: Server, held: HeldPasses, *, is_cancelled: bool
) -> None:
    with grpc.insecure_channel(server_of_small_passes.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        timeout_s = TIMEOUT_S if is_cancelled else 1.0  # enough for the first two passes to begin
        explained = stub.Explain.future(explain_request(8), timeout=timeout_s)
        held.wait_for_one()
        held.let_one_go()  # so that the lane knows that it is to be told
        held.wait_for_one()
        if is_cancelled:
            explained.cancel()
        else:
            assert explained.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        code_of(lambda: stub.Predict(request(3), timeout=SHORT_S))  # so has the end of the other
        held.let_go()
        stub.Predict(request(5), timeout=TIMEOUT_S)
    assert held.rows == [[2], [2], [5]]


def test_a_full_queue_refuses_at_once_and_what_waits_in_it_is_answered(
    start_server: Callable[..., Server], model: Model
) -> None:
    server = start_server(max_queue_rows=4)
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        requests = [request(1, seed=number) for number in range(40)]
        calls = [stub.Predict.future(asked, timeout=TIMEOUT_S) for asked in requests]
        codes = [call.code() for call in calls]
        for asked, call in zip(requests, calls, strict=True):
            if call.code() == grpc.StatusCode.OK:
                assert answers_to(model, asked, call.result())
            else:
                assert "the server is busy: " in (call.details() or "")
                assert ("grpc-retry-pushback-ms", "200") in call.trailing_metadata()
    assert grpc.StatusCode.OK in codes
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


def test_a_request_of_several_messages_or_of_none_is_refused_or_answered_once(
    channel: grpc.Channel,
) -> None:
    stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(PREDICT)
    data = request(1).SerializeToString()
    code = code_of(lambda: list(stream(iter([]), timeout=TIMEOUT_S)))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert len(list(stream(iter([data, data]), timeout=TIMEOUT_S))) == 1


def test_a_message_over_the_transports_limit_is_refused_and_the_next_one_answered(
    start_server: Callable[..., Server],
) -> None:
    server = start_server()
    with grpc.insecure_channel(
        server.address, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        raw: Raw = channel.unary_unary(PREDICT)
        code = code_of(lambda: raw(bytes(65 * 1024 * 1024), timeout=TIMEOUT_S))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert raw(request(1).SerializeToString(), timeout=TIMEOUT_S)


def test_compressed_requests_are_answered(server: Server, model: Model) -> None:
    with grpc.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        asked = request(64)
        assert answers_to(model, asked, stub.Predict(asked, timeout=TIMEOUT_S))


def test_compressed_requests_are_refused_where_they_are_not_wanted(
    start_server: Callable[..., Server],
) -> None:
    address = start_server(compression=False).address
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        raw: Raw = channel.unary_unary(PREDICT)
        with pytest.raises(grpc.RpcError, match="algorithm 'gzip' is disabled") as caught:
            raw(request(64).SerializeToString(), timeout=TIMEOUT_S)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_of_the_caller_changes_nothing_and_none_comes_back(
    stub: prediction_pb2_grpc.PredictionServiceStub,
) -> None:
    metadata = (("trace-id", "7"), ("blob-bin", b"\x00\xff" * 500))
    response, call = stub.Predict.with_call(request(1), timeout=TIMEOUT_S, metadata=metadata)
    assert response.model_version == 2
    assert call.code() == grpc.StatusCode.OK
    assert {key for key, _ in call.initial_metadata()} <= {"grpc-accept-encoding"}
    assert list(call.trailing_metadata()) == []


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    for method in ("/mlpserve.v1.PredictionService/Learn", "/no.such.Service/Predict"):
        raw: Raw = channel.unary_unary(method)
        assert code_of(lambda raw=raw: raw(b"", timeout=TIMEOUT_S)).name == "UNIMPLEMENTED"  # type: ignore[misc]


def test_many_callers_at_once_get_their_own_answers(server: Server, model: Model) -> None:
    right: list[bool] = []

    def ask(seed: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        with grpc.insecure_channel(server.address, options) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            for number in range(40):
                asked = request(1 + (seed + number) % 64, seed=1000 * seed + number)
                right.append(answers_to(model, asked, stub.Predict(asked, timeout=TIMEOUT_S)))

    threads = [Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert right == [True] * 320


def test_stopping_answers_what_was_accepted_and_refuses_what_comes_later(
    server: Server, stub: prediction_pb2_grpc.PredictionServiceStub, held: HeldPasses, model: Model
) -> None:
    requests = [request(2, seed=number) for number in range(3)]
    calls = [stub.Predict.future(requests[0], timeout=TIMEOUT_S)]
    held.wait_for_one()
    calls += [stub.Predict.future(asked, timeout=TIMEOUT_S) for asked in requests[1:]]
    code_of(lambda: stub.Predict(request(1), timeout=SHORT_S))  # the others have arrived
    stopper = Thread(target=server.stop)
    stopper.start()
    refused = code_of(lambda: _until_refused(server))
    assert refused == grpc.StatusCode.UNAVAILABLE
    held.let_go()
    for asked, call in zip(requests, calls, strict=True):
        assert answers_to(model, asked, call.result())
    stopper.join(TIMEOUT_S)
    assert not stopper.is_alive()


def _until_refused(server: Server) -> None:
    """Make calls until one is refused because the server takes no new ones."""
    while True:
        with grpc.insecure_channel(
            server.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            try:
                stub.Predict(request(1), timeout=SHORT_S)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise


def test_what_has_not_ended_within_the_grace_is_cancelled(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(stop_grace_s=0.1)
    ended = Event()

    def silence() -> Iterator[bytes]:
        ended.wait(TIMEOUT_S)
        yield b""

    with grpc.insecure_channel(server.address) as channel:
        open_call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(PREDICT)
        call = open_call.future(silence(), timeout=TIMEOUT_S)
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(request(1), timeout=TIMEOUT_S)  # what came before it has arrived as well
        server.stop()
        assert call.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        ended.set()


def test_a_server_that_drains_says_so_and_goes_on_answering_until_it_stops(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(drain_seconds=1.0)
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        stub.Predict(request(1), timeout=TIMEOUT_S)
        stopping = Thread(target=server.stop)
        stopping.start()
        asked = health_pb2.HealthCheckRequest()
        while health.Check(asked, timeout=TIMEOUT_S).status == 1:
            assert stopping.is_alive()
        assert len(stub.Predict(request(1), timeout=TIMEOUT_S).labels) == 4
        stopping.join(TIMEOUT_S)
        refused = code_of(lambda: stub.Predict(request(1), timeout=SHORT_S))
        assert refused in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def test_connections_over_the_limit_are_closed_and_a_free_place_is_given_away(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(max_connections=2)
    own = [("grpc.use_local_subchannel_pool", 1)]
    first, second, third = (grpc.insecure_channel(server.address, own) for _ in range(3))

    def predict(channel: grpc.Channel) -> object:
        return prediction_pb2_grpc.PredictionServiceStub(channel).Predict(
            request(1), timeout=TIMEOUT_S
        )

    predict(first)
    predict(second)
    assert code_of(lambda: predict(third)) == grpc.StatusCode.UNAVAILABLE
    second.close()
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        with grpc.insecure_channel(server.address, own) as fourth:
            try:
                predict(fourth)
                break
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
    else:
        pytest.fail("no place became free")
    for channel in (first, third):
        channel.close()
