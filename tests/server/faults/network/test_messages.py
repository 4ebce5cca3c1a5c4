"""Messages of every size, those that lie about theirs, and bytes that are no message."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import grpc
import numpy as np
import pytest

from mlpserve.v1 import prediction_pb2
from raw_http2 import MODEL_INFER, PREDICT, PREDICT_STREAM, RawHttp2, grpc_message
from steady_load import TIMEOUT_S

Attack = Callable[..., AbstractContextManager[Any]]
LIMIT: Final = 8 << 20
FLAGS: Final = ("--max-message-mb", "8")
OTHER_PATHS: Final = (MODEL_INFER, PREDICT_STREAM)
INVALID_ARGUMENT: Final = "3"
RESOURCE_EXHAUSTED: Final = "8"
NOT_FOUND: Final = "5"
# Field 4 of wire type 2, and a length of 10 GiB, in protobuf.
FIELD_OF_10_GIB: Final = b"\x22\x80\x80\x80\x80\x28" + b"pixels"
CALLS: Final = 3000


def bytes_of(images: int, *, size: int) -> bytes:
    """Return a request of so many bytes, whose images have one byte each."""
    count, kind = images, prediction_pb2.DATA_TYPE_UINT8

    def request(data: bytes) -> bytes:
        batch = prediction_pb2.ImageBatch(count=count, data_type=kind, data=data)
        return prediction_pb2.PredictRequest(images=batch).SerializeToString()

    overhead = len(request(bytes(size))) - size
    found = request(bytes(size - overhead))
    assert len(found) == size
    return found


def test_a_message_up_to_the_limit_gets_our_sentence_and_one_over_it_the_transports(
    attack: Attack, adapter: str
) -> None:
    fault = (
        "messages of 8 MiB, where that is the limit, of one byte more, and of three times as much"
    )
    with (
        attack(fault, *FLAGS, adapter=adapter) as server,
        grpc.insecure_channel(
            server.address, options=[("grpc.max_send_message_length", -1)]
        ) as channel,
    ):
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        refusals = []
        for size in (LIMIT, LIMIT + 1, 3 * LIMIT):
            with pytest.raises(grpc.RpcError) as caught:
                call(bytes_of(10_000, size=size), timeout=TIMEOUT_S)
            refusals.append((caught.value.code(), caught.value.details() or ""))
        assert refusals[0] == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "images.count: expected from 1 to 8192 images a request, got 10000",
        )
        for (code, details), size in zip(refusals[1:], (LIMIT + 1, 3 * LIMIT), strict=True):
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"({size} vs. {LIMIT})" in details
        server.outcome = "ours names the limit of images, the transport's that of bytes"


@pytest.mark.parametrize(
    "path",
    [PREDICT, *(pytest.param(path, marks=pytest.mark.exhaustive) for path in OTHER_PATHS)],
    ids=lambda path: path.rpartition("/")[2],
)
def test_a_message_that_announces_gigabytes_is_refused_before_they_are_set_aside(
    attack: Attack, adapter: str, path: str
) -> None:
    fault = (
        f"{path.rpartition('/')[2]} that announces 4 GiB by gRPC, 10 GiB by protobuf, and nothing"
    )
    with (
        attack(fault, adapter=adapter, peak_mb=20) as server,
        RawHttp2(server.address) as connection,
    ):
        for message, status, sentence in (
            (grpc_message(b"", announced=0xFFFFFFFF), RESOURCE_EXHAUSTED, "(4294967295 vs. "),
            (grpc_message(FIELD_OF_10_GIB), INVALID_ARGUMENT, "got 12 bytes that are none"),
            (grpc_message(b""), INVALID_ARGUMENT, "expected"),
        ):
            connection.statuses.clear()
            connection.resets.clear()
            connection.send(*connection.call(path, message))
            connection.receive(ends=1)
            ((found, details),) = connection.statuses
            assert found == status
            assert sentence in details
        server.outcome = "refused: by the transport, by us, by us"


@pytest.mark.exhaustive
def test_bytes_that_are_no_message_are_refused_by_the_thousand(
    attack: Attack, adapter: str
) -> None:
    rng = np.random.default_rng(3)
    fault = f"{2 * CALLS:,} calls of Predict and ModelInfer with random bytes"
    with attack(fault, adapter=adapter) as server, RawHttp2(server.address) as connection:
        connection.take_note()
        for number in range(1, CALLS + 1):
            garbage = rng.bytes(int(rng.integers(1, 200)))
            connection.send(*connection.call(PREDICT, grpc_message(garbage)))
            connection.send(*connection.call(MODEL_INFER, grpc_message(garbage)))
            if number % 100 == 0:
                connection.receive(ends=2 * number)
        codes = {status for status, _ in connection.statuses}
        assert connection.statuses.total() == 2 * CALLS
        assert codes <= {INVALID_ARGUMENT, NOT_FOUND}
        server.outcome = "all refused, and told why"
