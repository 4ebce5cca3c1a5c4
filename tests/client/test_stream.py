"""Streams of batches: order, failures on either side, and leaving early."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.client import (
    Client,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    Predictions,
    ServerFaultError,
    TimeoutExceededError,
    UnavailableError,
)
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2

WAIT_S = 20.0


def batches_of(*counts: int) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (count, 2, 3), np.uint8) for count in counts]


def good_answer(request: prediction_pb2.PredictStreamRequest) -> Any:
    count = request.images.count
    return prediction_pb2.PredictStreamResponse(
        model_version=1, probabilities=bytes(4 * count), labels=bytes(4 * count)
    )


def until_failure(
    answers: Iterator[Predictions],
) -> tuple[list[Predictions], Exception | None]:
    """Return the answers that come, and what ends them."""
    found = []
    try:
        for answer in answers:
            found.append(answer)  # noqa: PERF402 - those before the failure are wanted
    except Exception as error:  # noqa: BLE001 - any failure is the result
        return found, error
    return found, None


def test_each_batch_is_answered_in_its_order_as_the_network_says_in_process(
    client: Client, model: Model
) -> None:
    batches: list[npt.NDArray[Any]] = [*batches_of(1, 64, 3, 1, 20)]
    batches[1] = (batches[1] / 255).astype(np.float32)
    found = list(client.predict_stream(batch for batch in batches))
    assert len(found) == len(batches)
    for answer, batch in zip(found, batches, strict=True):
        expected = model.network.probabilities(model.metadata.input.scale(batch))
        np.testing.assert_allclose(answer.probabilities, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(answer.labels, expected.argmax(axis=1))
        assert (answer.model_name, answer.model_version) == ("tiny", 2)


def test_a_stream_may_be_pinned_or_empty(client: Client) -> None:
    found = list(client.predict_stream(batches_of(2, 2), model="tiny", version=1))
    assert [answer.model_version for answer in found] == [1, 1]
    assert list(client.predict_stream([])) == []


def test_an_answer_comes_before_later_batches_exist(client: Client) -> None:
    batches = batches_of(1, 1, 1)
    answered = threading.Semaphore(1)

    def one_at_a_time() -> Iterator[npt.NDArray[np.uint8]]:
        for batch in batches:
            assert answered.acquire(timeout=WAIT_S)
            yield batch

    for _ in client.predict_stream(one_at_a_time()):
        answered.release()


def test_what_the_batches_raise_comes_to_the_caller_after_the_answers_before_it(
    client: Client,
) -> None:
    class DiskError(Exception):
        pass

    def batches() -> Iterator[npt.NDArray[np.uint8]]:
        yield from batches_of(2, 3)
        raise DiskError("the disk is gone")

    found, error = until_failure(client.predict_stream(batches()))
    assert [len(answer) for answer in found] == [2, 3]
    assert isinstance(error, DiskError)


def test_a_batch_that_cannot_be_sent_is_refused_after_the_answers_before_it(
    client: Client,
) -> None:
    batches: list[npt.NDArray[Any]] = [*batches_of(2), np.zeros((1, 6), np.complex64)]
    found, error = until_failure(client.predict_stream(batches))
    assert [len(answer) for answer in found] == [2]
    assert isinstance(error, InvalidRequestError)
    assert "images: expected integers" in str(error)


def test_what_the_server_refuses_comes_after_the_answers_before_it(client: Client) -> None:
    found, error = until_failure(client.predict_stream([*batches_of(2), np.zeros((1, 5))]))
    assert [len(answer) for answer in found] == [2]
    assert isinstance(error, InvalidRequestError)
    assert isinstance(error.__cause__, grpc.RpcError)
    with pytest.raises(NotFoundError, match="version 9"):
        next(client.predict_stream(batches_of(1), version=9))


def test_leaving_early_ends_the_call_and_gives_its_place_back(client: Client) -> None:
    ended = threading.Event()

    def stuck() -> Iterator[npt.NDArray[np.uint8]]:
        yield from batches_of(1)
        ended.wait(WAIT_S)

    def one_answer() -> Predictions:
        while True:
            try:
                return next(client.predict_stream(stuck()))
            except UnavailableError:
                # The place of the one before is given back a moment after it was left.
                assert time.monotonic() < give_up_s

    give_up_s = time.monotonic() + WAIT_S
    # Were these not ended, the fifth would find no place, as the server takes four at once.
    for _ in range(3 * ServerConfig.max_streams):
        assert len(one_answer()) == 1
    ended.set()


def test_the_server_sees_a_stream_cancelled_that_its_caller_leaves(
    serve: Callable[..., str],
) -> None:
    cancelled = threading.Event()

    def stream(
        requests: Iterator[prediction_pb2.PredictStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        yield good_answer(next(requests))
        assert cancelled.wait(WAIT_S)

    with Client(serve(PredictStream=stream)) as client:
        answers = client.predict_stream(batches_of(1, 1))
        next(answers)
        assert not cancelled.is_set()
        answers.close()  # type: ignore[attr-defined]
        assert cancelled.wait(WAIT_S)


def test_a_deadline_holds_for_the_whole_stream_even_if_the_batches_never_end(
    client: Client,
) -> None:
    ended = threading.Event()

    def stuck() -> Iterator[npt.NDArray[np.uint8]]:
        yield from batches_of(1)
        ended.wait(WAIT_S)

    started = time.monotonic()
    found, error = until_failure(client.predict_stream(stuck(), timeout_s=0.5))
    ended.set()
    assert [len(answer) for answer in found] == [1]
    assert isinstance(error, TimeoutExceededError)
    assert time.monotonic() - started < WAIT_S


def test_closing_the_client_ends_its_streams_with_an_error_that_says_so(server: Server) -> None:
    ended = threading.Event()

    def stuck() -> Iterator[npt.NDArray[np.uint8]]:
        yield from batches_of(1)
        ended.wait(WAIT_S)

    client = Client(server.address)
    answers = client.predict_stream(stuck())
    next(answers)
    client.close()
    with pytest.raises(ClientError, match="the client was closed meanwhile") as caught:
        next(answers)
    ended.set()
    assert type(caught.value) is ClientError


@pytest.mark.parametrize("answers_per_request", [0, 2], ids=["too-few", "too-many"])
def test_a_server_that_answers_too_few_or_too_many_batches_is_at_fault(
    serve: Callable[..., str], answers_per_request: int
) -> None:
    def stream(
        requests: Iterator[prediction_pb2.PredictStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        for number, request in enumerate(requests):
            for _ in range(answers_per_request if number else 1):
                yield good_answer(request)

    with Client(serve(PredictStream=stream)) as client:
        found, error = until_failure(client.predict_stream(batches_of(2, 3)))
    assert [len(answer) for answer in found][:1] == [2]
    assert isinstance(error, ServerFaultError)


def test_a_server_that_ends_a_stream_before_its_batches_is_at_fault(
    serve: Callable[..., str],
) -> None:
    def stream(
        requests: Iterator[prediction_pb2.PredictStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        yield good_answer(next(requests))

    ended = threading.Event()

    def stuck() -> Iterator[npt.NDArray[np.uint8]]:
        yield from batches_of(1)
        ended.wait(WAIT_S)

    with Client(serve(PredictStream=stream)) as client:
        found, error = until_failure(client.predict_stream(stuck()))
    ended.set()
    assert [len(answer) for answer in found] == [1]
    assert isinstance(error, ServerFaultError)


def test_a_stream_that_the_server_ends_at_the_deadline_is_a_timeout_and_no_fault_of_the_server(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0

    def stream(requests: object, context: object) -> Iterator[Any]:
        nonlocal now_s
        now_s += 60
        return iter(())

    monkeypatch.setattr("mlpserve.client.sending.time.monotonic", lambda: now_s)
    with Client(serve(PredictStream=stream)) as client:
        found, error = until_failure(client.predict_stream(batches_of(1), timeout_s=30))
    assert found == []
    assert isinstance(error, TimeoutExceededError)


def test_a_stream_is_given_up_after_five_calls_that_bring_no_answer(
    serve: Callable[..., str],
) -> None:
    tries: list[int] = []

    def stream(
        requests: Iterator[prediction_pb2.PredictStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        tries.append(1)
        context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        yield  # which makes it a stream

    with Client(serve(PredictStream=stream)) as client, pytest.raises(UnavailableError):
        list(client.predict_stream(batches_of(1, 2, 3)))
    assert len(tries) == 5
