"""Floods of the frames by which HTTP/2 runs itself."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import pytest
from hyperframe.frame import Frame, PingFrame, PriorityFrame, SettingsFrame, WindowUpdateFrame

from raw_http2 import PREDICT, RawHttp2

Attack = Callable[..., AbstractContextManager[Any]]
FRAMES: Final = 50_000
TOGETHER: Final = 500
ENHANCE_YOUR_CALM: Final = 11
LARGEST_WINDOW: Final = (1 << 31) - 1


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("frame", "outcome"),
    [
        (PingFrame(opaque_data=b"are you?"), "closed: too_many_pings"),
        (SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}), "read no faster"),
        (PriorityFrame(1, depends_on=3), "ignored"),
    ],
    ids=["PING", "SETTINGS", "PRIORITY"],
)
def test_a_flood_of_frames_whose_answers_nobody_reads_takes_no_memory(
    attack: Attack, frame: Frame, outcome: str
) -> None:
    name = type(frame).__name__.removesuffix("Frame").upper()
    fault = f"{FRAMES:,} {name} frames, answers unread"
    with attack(fault, peak_mb=30) as server, RawHttp2(server.address) as connection:
        connection.take_note()
        connection.socket.settimeout(1.0)
        for _ in range(FRAMES // TOGETHER):
            connection.send(frame.serialize() * TOGETHER)
        connection.is_closed = False  # what was said before it was closed is there to be read
        connection.receive(timeout_s=60.0 if outcome.startswith("closed") else 0.5)
        if connection.is_closed:
            assert connection.goaway in {(ENHANCE_YOUR_CALM, "too_many_pings"), None}
        assert connection.is_closed == outcome.startswith("closed")
        server.outcome = outcome


@pytest.mark.exhaustive
def test_windows_that_overflow_harm_nobody(attack: Attack) -> None:
    fault = "20,000 WINDOW_UPDATE frames beyond the largest window, of a stream and of all"
    with attack(fault, peak_mb=30) as server:
        for is_of_stream in (True, False):
            with RawHttp2(server.address) as connection:
                connection.take_note()
                headers = connection.headers(PREDICT)
                stream = headers.stream_id if is_of_stream else 0
                update = WindowUpdateFrame(stream, LARGEST_WINDOW).serialize()
                connection.send(headers, update * 10_000)
                connection.receive(timeout_s=0.3)
        server.outcome = "ignored by gRPC, though HTTP/2 would have the connection closed"
