"""Callers that ask and do not read."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

import grpc
import pytest
from hyperframe.frame import SettingsFrame

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from raw_http2 import PREDICT, PREDICT_STREAM, RawHttp2, data_frames, grpc_message
from steady_load import REQUEST, TIMEOUT_S

Attack = Callable[..., AbstractContextManager[Any]]
STREAMS: Final = 1024  # of a connection at once
NO_ERROR: Final = 0
REFUSED_STREAM: Final = 7
UNAVAILABLE: Final = "14"
IMAGES: Final = 8192
BATCHES: Final = 300
# On the public API requests wait in grpcio, whole, until a thread has time for them.
PEAK_MB: Final = {"fast lane": 100, "public API": 400}
OWN_CONNECTION: Final = [("grpc.use_local_subchannel_pool", 1)]
BATCH: Final = grpc_message(
    prediction_pb2.PredictRequest(
        images=prediction_pb2.ImageBatch(
            count=IMAGES, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6 * IMAGES)
        )
    ).SerializeToString()
)
NOTHING_AT_FIRST: Final = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}


@pytest.mark.exhaustive
def test_answers_that_nobody_takes_are_kept_for_as_many_calls_as_a_connection_may_have(
    attack: Attack, adapter: str
) -> None:
    calls = STREAMS + 1000
    fault = f"{calls} calls of Predict with {IMAGES:,} images, whose answers are never taken"
    with (
        attack(fault, adapter=adapter, peak_mb=PEAK_MB[adapter]) as server,
        RawHttp2(server.address, NOTHING_AT_FIRST) as connection,
    ):
        connection.take_note()
        connection.socket.settimeout(TIMEOUT_S)
        for _ in range(STREAMS):
            headers = connection.headers(PREDICT)
            connection.send(headers)
            connection.send_data(headers.stream_id, BATCH)
        connection.send(*(connection.headers(PREDICT) for _ in range(calls - STREAMS)))
        connection.receive(ends=calls - STREAMS)
        refused = connection.statuses.total()
        server.outcome = (
            f"{refused:,} refused by us, {connection.resets[REFUSED_STREAM]:,} by the transport; "
            "the others are kept until the connection goes"
        )
        assert connection.ended >= calls - STREAMS
        assert {status for status, _ in connection.statuses} == {UNAVAILABLE}
        assert all(said.startswith("the server is busy: ") for _, said in connection.statuses)
        assert set(connection.resets) <= {NO_ERROR, REFUSED_STREAM}


def test_streams_that_nobody_reads_are_read_no_further(attack: Attack, adapter: str) -> None:
    fault = f"4 PredictStreams with {BATCHES} batches each, whose answers are never taken"
    with (
        attack(fault, adapter=adapter, peak_mb=60) as server,
        RawHttp2(server.address, NOTHING_AT_FIRST) as connection,
    ):
        connection.take_note()
        connection.socket.settimeout(0.3)
        sent = sum(batches_taken(connection) for _ in range(4))
        server.outcome = f"of {4 * BATCHES} batches, {sent} were taken"
        assert 0 < sent < 4 * BATCHES / 2


def batches_taken(connection: RawHttp2) -> int:
    """Open a stream, and return how many batches the server takes of it."""
    headers = connection.headers(PREDICT_STREAM)
    connection.send(headers)
    for taken in range(BATCHES):
        for frame in data_frames(headers.stream_id, BATCH, ends=False):
            if not connection.can_send(headers.stream_id, len(frame.data)):
                return taken
            connection.send(frame)
    return BATCHES


def test_a_good_client_may_have_more_calls_under_way_than_a_connection_has_streams(
    attack: Attack, adapter: str
) -> None:
    calls = 4 * STREAMS

    def asked(channel: grpc.Channel) -> Iterator[Any]:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        return (stub.Predict.future(REQUEST, timeout=TIMEOUT_S) for _ in range(calls))

    with (
        attack(
            f"{calls:,} calls at once by one client that takes its answers", adapter=adapter
        ) as server,
        grpc.insecure_channel(server.address, OWN_CONNECTION) as channel,
    ):
        answers = [call.result() for call in list(asked(channel))]
        assert [answer.model_version for answer in answers] == [2] * calls
        server.outcome = "all are answered: its library makes those over the limit wait"
