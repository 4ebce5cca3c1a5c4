"""Connections whose headers do not end, or are far too many."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import pytest
from hyperframe.frame import ContinuationFrame, Frame

from raw_http2 import OK, PREDICT, RawHttp2, data_frames, grpc_message
from steady_load import REQUEST

Attack = Callable[..., AbstractContextManager[Any]]
RESOURCE_EXHAUSTED: Final = "8"
LIMIT_BYTES: Final = 16_384
FRAMES: Final = 6000
FIRST_STREAM: Final = 1
# A literal field that is not put into the table: its key, and how long its value is, in HPACK.
FIELD: Final = b"\x00\x01x\x7f\x81\x7e" + b"y" * 16_256


def split(connection: RawHttp2, value_bytes: int) -> list[Frame]:
    """Return the frames of a call with one large header."""
    first = connection.headers(PREDICT, ("large", "y" * value_bytes))
    data = data_frames(first.stream_id, grpc_message(REQUEST.SerializeToString()))
    starts = range(LIMIT_BYTES, len(first.data), LIMIT_BYTES)
    parts = [ContinuationFrame(first.stream_id, first.data[at : at + LIMIT_BYTES]) for at in starts]
    if parts:
        first.data = first.data[:LIMIT_BYTES]
        first.flags.discard("END_HEADERS")
        parts[-1].flags.add("END_HEADERS")
    return [first, *parts, *data]


@pytest.mark.exhaustive
def test_empty_frames_of_headers_without_end_end_their_connection(attack: Attack) -> None:
    with (
        attack("headers for ever: empty CONTINUATION frames") as server,
        RawHttp2(server.address) as connection,
    ):
        sent = send_headers_without_end(connection, b"", FRAMES)
        connection.receive(timeout_s=1.0)
        server.outcome = f"closed after at most {sent:,} frames"
        assert connection.is_closed


def test_full_frames_of_headers_without_end_are_not_kept(attack: Attack) -> None:
    fault = f"headers for ever: {FRAMES:,} CONTINUATION frames of 16 kB"
    # Up to 32 MB of what was freed stays with the allocator, whatever it was for.
    with attack(fault, peak_mb=50) as server, RawHttp2(server.address) as connection:
        assert send_headers_without_end(connection, FIELD, FRAMES) == FRAMES
        # They end after all; who had kept them would have 98 MB by now.
        last = ContinuationFrame(FIRST_STREAM, flags=["END_HEADERS"])
        connection.send(last)
        connection.receive(ends=1)
        ((status, details),) = connection.statuses
        assert status == RESOURCE_EXHAUSTED
        assert f" vs. {LIMIT_BYTES})" in details
        server.outcome = "read, and thrown away; the call is refused"


def send_headers_without_end(connection: RawHttp2, part: bytes, most: int) -> int:
    """Send frames of headers, and return how many the server took before it closed."""
    connection.take_note()
    headers = connection.headers(PREDICT)
    headers.flags.discard("END_HEADERS")
    connection.send(headers)
    sent = 0
    while not connection.is_closed and sent < most:
        connection.send(ContinuationFrame(headers.stream_id, part))
        sent += 1
    return sent


def test_headers_over_the_limit_are_refused_and_the_next_call_is_answered(attack: Attack) -> None:
    with (
        attack("headers of up to 10 MB") as server,
        RawHttp2(server.address) as connection,
    ):
        connection.take_note()
        sizes = (LIMIT_BYTES, 100_000, 1_000_000, 10_000_000)
        for ended, size in enumerate(sizes, 1):
            connection.send(*split(connection, size))
            connection.receive(ends=ended)
        connection.send(*split(connection, 10_000))
        connection.receive(ends=len(sizes) + 1)
        statuses = [
            status for (status, _), count in connection.statuses.items() for _ in range(count)
        ]
        assert sorted(statuses) == [OK, *[RESOURCE_EXHAUSTED] * len(sizes)]
        server.outcome = "refused by the transport, which names its limit of 16,384 bytes"


@pytest.mark.exhaustive
def test_who_takes_no_note_of_the_limit_is_held_to_that_of_grpc(attack: Attack) -> None:
    fault = "headers of 20 MB before the server's settings are acknowledged"
    with attack(fault) as server, RawHttp2(server.address) as connection:
        connection.send(*split(connection, 20_000_000))
        connection.receive(ends=1)
        ((status, details),) = connection.statuses
        assert status == RESOURCE_EXHAUSTED
        assert "16777216" in details
        server.outcome = "refused: until then gRPC's limit is 16 MB, and for 10 s at most"
