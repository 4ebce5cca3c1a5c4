"""Connections that are opened and then say nothing, or next to nothing."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

import pytest
from hyperframe.frame import SettingsFrame

from raw_http2 import DEFAULTS, OK, PREDICT, PREFACE, RawHttp2, grpc_message
from steady_load import REQUEST

Attack = Callable[..., AbstractContextManager[Any]]
TIMEOUT_S: Final = 20.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
PERIOD_S: Final = 0.05
MOST: Final = 300
CALL: Final = grpc_message(REQUEST.SerializeToString())


def is_answered(address: str) -> bool:
    with RawHttp2(address) as connection:
        connection.send(*connection.call(PREDICT, CALL))
        connection.receive(ends=1, timeout_s=TIMEOUT_S)
        return (OK, "") in connection.statuses


@pytest.mark.exhaustive
def test_silent_connections_leave_room_for_others_up_to_the_limit_and_are_closed(
    attack: Attack,
) -> None:
    fault = f"{2 * MOST} connections that say nothing, where {MOST} may be open"
    with attack(fault, "--max-connections", str(MOST)) as server, ExitStack() as held:
        began_s = time.monotonic()
        first = [held.enter_context(RawHttp2(server.address, None)) for _ in range(MOST - 20)]
        assert is_answered(server.address)
        more = [held.enter_context(RawHttp2(server.address, None)) for _ in range(MOST + 20)]
        descriptors = server.now().descriptors
        assert descriptors <= server.before.descriptors + MOST
        for connection in [*more, *first]:
            connection.receive(timeout_s=TIMEOUT_S)
            assert connection.is_closed
        took_s = time.monotonic() - began_s
        assert took_s < 2 * HANDSHAKE_TIMEOUT_S
        assert first[0].goaway is not None
        assert "timeout" in first[0].goaway[1]
        assert is_answered(server.address)
        server.outcome = (
            f"others are answered as long as there is room; over the limit they are closed at "
            f"once, all within {took_s:.0f} s"
        )


@pytest.mark.exhaustive
def test_who_sends_a_byte_at_a_time_holds_nothing_but_a_connection(attack: Attack) -> None:
    settings = SettingsFrame().serialize()
    fault = "60 connections that send a byte every 50 ms: of the preface, of headers, of a message"
    with attack(fault) as server, ExitStack() as held:
        slow: list[tuple[RawHttp2, Any]] = []
        for number in range(60):
            begins = DEFAULTS if number % 3 else None
            connection = held.enter_context(RawHttp2(server.address, begins))
            frames = connection.call(PREDICT, CALL)
            headers, data = frames[0].serialize(), frames[1].serialize()
            if number % 3 == 0:
                slow.append((connection, PREFACE + settings + headers + data))
            elif number % 3 == 1:
                slow.append((connection, headers + data))
            else:
                connection.send(headers)
                slow.append((connection, data))
        for at in range(max(len(rest) for _, rest in slow)):
            for connection, rest in slow:
                if at < len(rest):
                    connection.send(rest[at : at + 1])
            time.sleep(PERIOD_S)
        for connection, _ in slow:
            connection.receive(ends=1, timeout_s=TIMEOUT_S)
        assert all((OK, "") in connection.statuses for connection, _ in slow)
        server.outcome = "each is answered when its call is whole"
