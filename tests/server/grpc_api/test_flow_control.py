"""Streams whose two sides go at their own pace."""

import threading
from collections.abc import Callable, Iterator
from threading import Semaphore

import grpc
import numpy as np

from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 60.0
BATCH = 8192
BATCHES = 800
STILL_S = 1.0


def batch(number: int) -> prediction_pb2.PredictStreamRequest:
    pixels = np.full((BATCH, 6), number % 256, np.uint8)
    images = prediction_pb2.ImageBatch(
        count=BATCH, data_type=prediction_pb2.DATA_TYPE_UINT8, data=pixels.tobytes()
    )
    return prediction_pb2.PredictStreamRequest(images=images)


def test_a_reader_that_takes_nothing_is_sent_little_and_later_gets_all_in_order(
    start_server: Callable[..., Server],
) -> None:
    sent = Semaphore(0)

    def requests() -> Iterator[prediction_pb2.PredictStreamRequest]:
        for number in range(BATCHES):
            sent.release()
            yield batch(number)

    with grpc.insecure_channel(start_server().address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        call = stub.PredictStream(requests(), timeout=TIMEOUT_S)
        count = 0
        while sent.acquire(timeout=STILL_S):  # until nothing more goes out
            count += 1
        # Answers are 131 kB each: all in flight, and what the transports on the way hold.
        assert count < BATCHES / 2
        single = [
            stub.Predict(
                prediction_pb2.PredictRequest(images=batch(number).images), timeout=TIMEOUT_S
            )
            for number in (0, 1, BATCHES - 1)
        ]
        responses = [response.probabilities for response in call]
    assert len(responses) == BATCHES
    assert [responses[0], responses[1], responses[-1]] == [
        answer.probabilities for answer in single
    ]


def test_no_thread_is_left_behind_by_streams_that_end_in_whatever_way(
    start_server: Callable[..., Server],
) -> None:
    def readers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]

    with grpc.insecure_channel(start_server().address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(10):
            call = stub.PredictStream(map(batch, range(3)), timeout=TIMEOUT_S)
            next(call)
            call.cancel()
            bad = prediction_pb2.PredictStreamRequest(model_version=-1)
            failing = stub.PredictStream(iter([batch(0), bad, batch(1)]), timeout=TIMEOUT_S)
            try:
                list(failing)
            except grpc.RpcError as error:
                assert error.code() in {
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.UNAVAILABLE,
                }
    for thread in readers():
        thread.join(TIMEOUT_S)
    assert readers() == []
