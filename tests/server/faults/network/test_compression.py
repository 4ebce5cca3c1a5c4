"""Compressed requests that unpack to far more than they have."""

import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import pytest

from raw_http2 import MODEL_INFER, PREDICT, PREDICT_STREAM, RawHttp2, grpc_message

Attack = Callable[..., AbstractContextManager[Any]]
MB: Final = 1 << 20
LIMIT_MB: Final = 8
RESOURCE_EXHAUSTED: Final = "8"
INVALID_ARGUMENT: Final = "3"
WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}  # zlib's way to say which


def bomb(encoding: str, megabytes: int) -> bytes:
    """Return what unpacks to so many megabytes of zeros, framed for gRPC."""
    packer = zlib.compressobj(level=9, wbits=WINDOW_BITS[encoding])
    packed = b"".join(packer.compress(bytes(MB)) for _ in range(megabytes)) + packer.flush()
    return grpc_message(packed, compressed=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_unpacks_to_more_than_the_limit_is_refused(attack: Attack, encoding: str) -> None:
    fault = f"{encoding} messages of 0.25 MB that unpack to 256 MB, of which 8 may be"
    paths = (PREDICT, MODEL_INFER, PREDICT_STREAM)
    packed = bomb(encoding, 256)
    with (
        attack(fault, "--max-message-mb", str(LIMIT_MB), peak_mb=40) as server,
        RawHttp2(server.address) as connection,
    ):
        connection.take_note()
        for ended, path in enumerate(paths, 1):
            headers = connection.headers(path, ("grpc-encoding", encoding))
            connection.send(headers)
            connection.send_data(headers.stream_id, packed)
            connection.receive(ends=ended)
        assert set(connection.statuses) == {
            (RESOURCE_EXHAUSTED, "Decompressed message larger than max")
        }
        server.outcome = "the transport stops to unpack them at the limit, and refuses them"


@pytest.mark.exhaustive
def test_many_that_unpack_to_the_limit_take_as_much_as_they_unpack_to(attack: Attack) -> None:
    fault = "10 gzip messages of 8 kB that unpack to 7 MB, the most that may be"
    packed = bomb("gzip", 7)
    with (
        attack(fault, "--max-message-mb", str(LIMIT_MB), peak_mb=200) as server,
        RawHttp2(server.address) as connection,
    ):
        connection.take_note()
        for _ in range(10):
            connection.send(*connection.call(PREDICT, packed, ("grpc-encoding", "gzip")))
        connection.receive(ends=10)
        assert {status for status, _ in connection.statuses} == {INVALID_ARGUMENT}
        server.outcome = "unpacked as they come: up to --max-message-mb for each call at once"
