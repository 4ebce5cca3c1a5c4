"""Connections that begin streams by the thousand: left open, or taken back at once."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

import grpc
import pytest
from hyperframe.frame import RstStreamFrame

from footprint import Footprint
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from raw_http2 import MODEL_INFER, PREDICT, PREDICT_STREAM, RawHttp2, grpc_message
from steady_load import REQUEST

RunServer = Callable[..., AbstractContextManager[Any]]
Attack = Callable[..., AbstractContextManager[Any]]
WATCH: Final = "/grpc.health.v1.Health/Watch"
NO_ERROR: Final = 0
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
STREAMS: Final = 10_000
TIMEOUT_S: Final = 20.0
TOGETHER: Final = 100
MESSAGE: Final = grpc_message(REQUEST.SerializeToString())


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(PREDICT, id="Predict", marks=pytest.mark.exhaustive),
        pytest.param(PREDICT_STREAM, id="PredictStream"),
    ],
)
def test_who_opens_streams_by_the_thousand_has_those_over_the_limit_refused(
    attack: Attack, adapter: str, path: str
) -> None:
    fault = f"{STREAMS:,} streams of {path.rpartition('/')[2]} opened on one connection"
    with attack(fault, adapter=adapter) as server, RawHttp2(server.address) as connection:
        connection.take_note()
        for _ in range(STREAMS // TOGETHER):
            connection.send(*(connection.headers(path) for _ in range(TOGETHER)))
        connection.receive(ends=STREAMS - 1024)
        refused = connection.resets[REFUSED_STREAM]
        server.outcome = f"{refused:,} refused by the transport; no other holds a thread"
        assert refused >= STREAMS - 1024
        assert set(connection.resets) <= {NO_ERROR, REFUSED_STREAM}
        assert not connection.statuses


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((PREDICT, MODEL_INFER), b""),
        ((PREDICT, MODEL_INFER), MESSAGE),
        ((PREDICT_STREAM,), MESSAGE),
    ],
    ids=["headers only", "unary", "streams"],
)
def test_who_begins_calls_and_takes_them_back_at_once_harms_nobody(
    attack: Attack, adapter: str, paths: Sequence[str], message: bytes
) -> None:
    names = " and ".join(path.rpartition("/")[2] for path in paths)
    what = "with" if message else "without"
    fault = f"{STREAMS:,} calls of {names} {what} a request, reset at once (CVE-2023-44487)"
    with (
        attack(fault, adapter=adapter, peak_mb=200) as server,
        RawHttp2(server.address) as connection,
    ):
        connection.take_note()
        for number in range(STREAMS):
            path = paths[number % len(paths)]
            frames = connection.call(path, message) if message else [connection.headers(path)]
            connection.send(*frames, RstStreamFrame(frames[0].stream_id, CANCEL))
        connection.receive(timeout_s=0.2)
        assert connection.goaway is None
        server.outcome = "all are forgotten"


@pytest.mark.exhaustive
@pytest.mark.parametrize("message", [grpc_message(b""), b""], ids=["watches", "headers only"])
def test_who_watches_health_by_the_thousand_costs_little(
    attack: Attack, adapter: str, message: bytes
) -> None:
    connections, each = 10, 1000
    what = "that are asked for" if message else "whose request never comes"
    with (
        attack(
            f"{connections * each:,} watches of health {what}", adapter=adapter, peak_mb=200
        ) as server,
        ExitStack() as open_connections,
    ):
        for _ in range(connections):
            connection = open_connections.enter_context(RawHttp2(server.address))
            connection.take_note()
            for _ in range(each):
                frames = connection.call(WATCH, message) if message else [connection.headers(WATCH)]
                connection.send(*frames)
            connection.receive(timeout_s=0.1)
        server.outcome = "2 for each connection may be open" if message else "1 for each, for 60 s"


@pytest.mark.exhaustive
def test_memory_that_floods_of_reset_calls_took_is_given_back(attack: Attack, adapter: str) -> None:
    fault = f"5 times {STREAMS:,} calls of Predict with a request, reset at once"
    with attack(fault, adapter=adapter, peak_mb=500) as server:
        for _ in range(5):
            with RawHttp2(server.address) as connection:
                connection.take_note()
                for _ in range(STREAMS):
                    frames = connection.call(PREDICT, MESSAGE)
                    connection.send(*frames, RstStreamFrame(frames[0].stream_id, CANCEL))
                connection.discard(timeout_s=0.2)
            with grpc.insecure_channel(server.address) as channel:  # the next when all were seen
                PredictionServiceStub(channel).Predict(REQUEST, timeout=TIMEOUT_S)
        server.outcome = "given back within 20 s"


@pytest.mark.exhaustive
def test_calls_that_were_taken_back_are_not_kept_by_the_fast_lane_where_nobody_asks(
    run_server: RunServer, tiny_models: None
) -> None:
    with run_server("--workers", "1") as server:
        memory_bytes = []
        for _ in range(3):
            with RawHttp2(server.address) as connection:
                connection.take_note()
                for _ in range(STREAMS):
                    frames = connection.call(PREDICT, MESSAGE)
                    connection.send(*frames, RstStreamFrame(frames[0].stream_id, CANCEL))
                connection.discard(timeout_s=0.5)
            memory_bytes.append(Footprint.of(server.process.pid).memory_bytes)
        server.stop()
    # Each has some 17 kB in gRPC; what the first flood took is used again by the others.
    assert memory_bytes[2] - memory_bytes[0] < 2 * STREAMS * 8000
