import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from mlpserve.server.errors import NotServedError
from mlpserve.server.workers.connection import (
    Connection,
    ConnectionClosedError,
    Content,
    connection_pair,
)
from mlpserve.server.workers.rpc import Handler, PeerError, RpcChannel

TIMEOUT_S = 20.0

Pair = tuple[RpcChannel, RpcChannel]


@pytest.fixture
def converse() -> Iterator[Callable[[Handler, Handler], Pair]]:
    """Return a function that has two handlers talk to each other."""
    made: list[RpcChannel] = []

    def start(first: Handler, second: Handler) -> Pair:
        own, other = connection_pair()
        pair = (RpcChannel(own, first), RpcChannel(Connection(other), second))
        made.extend(pair)
        return pair

    yield start
    for conversation in made:
        conversation.end()


def echo(method: str, arguments: Content, descriptors: Sequence[int]) -> Content:
    contents = [os.pread(descriptor, 100, 0).decode() for descriptor in descriptors]
    return {"method": method, "arguments": arguments, "contents": contents}


def test_both_sides_ask_and_are_answered_at_once(
    converse: Callable[[Handler, Handler], Pair],
) -> None:
    everybody = Barrier(20)

    def meet(method: str, arguments: Content, descriptors: Sequence[int]) -> Content:
        everybody.wait(TIMEOUT_S)
        return echo(method, arguments, descriptors)

    answers: dict[tuple[int, int], Content] = {}

    def ask(side: int, number: int) -> None:
        answers[side, number] = pair[side].call(f"of {side}", {"number": number})

    pair = converse(meet, meet)
    threads = [Thread(target=ask, args=(side, number)) for side in (0, 1) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {
        (side, number): {"method": f"of {side}", "arguments": {"number": number}, "contents": []}
        for side in (0, 1)
        for number in range(10)
    }


def test_files_come_with_a_call_and_are_closed_after_it(
    converse: Callable[[Handler, Handler], Pair],
) -> None:
    seen: list[int] = []

    def keep(method: str, arguments: Content, descriptors: Sequence[int]) -> Content:
        seen.extend(descriptors)
        return echo(method, arguments, descriptors)

    caller, _ = converse(echo, keep)
    with tempfile.TemporaryFile() as file:
        file.write(b"text")
        file.flush()
        assert caller.call("read", descriptors=[file.fileno()])["contents"] == ["text"]
    for descriptor in seen:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_our_errors_are_raised_at_the_caller_and_others_show_nothing_of_the_inside(
    converse: Callable[[Handler, Handler], Pair], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(method: str, arguments: Content, descriptors: Sequence[int]) -> Content:
        if method == "refuse":
            raise NotServedError("no such model")
        raise RuntimeError("a secret")

    caller, _ = converse(echo, fail)
    with pytest.raises(NotServedError, match="^no such model$"):
        caller.call("refuse")
    with pytest.raises(PeerError) as failure:
        caller.call("break")
    assert "secret" not in str(failure.value)
    assert "a secret" in caplog.text


def test_an_answer_that_comes_too_late_is_dropped_and_the_next_is_right(
    converse: Callable[[Handler, Handler], Pair],
) -> None:
    go_on = Event()

    def dawdle(method: str, arguments: Content, descriptors: Sequence[int]) -> Content:
        if method == "slow":
            go_on.wait(TIMEOUT_S)
        return {"said": method}

    caller, _ = converse(echo, dawdle)
    with pytest.raises(TimeoutError):
        caller.call("slow", timeout_s=0.01)
    assert caller.call("quick") == {"said": "quick"}
    go_on.set()
    assert [caller.call(str(n)) for n in range(3)] == [{"said": str(n)} for n in range(3)]


def test_a_peer_that_goes_fails_the_calls_that_wait_and_those_that_come() -> None:
    ended, asked = Event(), Event()

    def never(method: str, arguments: Content, descriptors: Sequence[int]) -> Content:
        asked.set()
        ended.wait(TIMEOUT_S)
        return {}

    own, other = connection_pair()
    caller = RpcChannel(own, echo, on_end=ended.set)
    peer = RpcChannel(Connection(other), never)
    failures: list[Any] = []

    def ask() -> None:
        try:
            caller.call("never")
        except ConnectionClosedError as error:
            failures.append(error)

    thread = Thread(target=ask)
    thread.start()
    assert asked.wait(TIMEOUT_S)
    peer.end()
    thread.join()
    assert len(failures) == 1
    assert ended.wait(TIMEOUT_S)
    with pytest.raises(ConnectionClosedError):
        caller.call("more")
