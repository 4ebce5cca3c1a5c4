import os
import tempfile
from collections.abc import Callable, Iterator
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from mlpserve.server.errors import NotServedError, ShortageError
from mlpserve.server.workers.connection import Connection, ConnectionClosedError, connection_pair
from mlpserve.server.workers.rpc import Handler, PeerError, RpcChannel

TIMEOUT_S = 60.0

Handlers = dict[str, Handler]
Pair = tuple[RpcChannel, RpcChannel]
Connect = Callable[[Handlers, Handlers], Pair]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that connects two tables of handlers."""
    made: list[RpcChannel] = []

    def start(first: Handlers, second: Handlers) -> Pair:
        own, other = connection_pair()
        pair = (RpcChannel(own, first), RpcChannel(Connection(other), second))
        made.extend(pair)
        return pair

    yield start
    for channel in made:
        channel.end()


def test_both_sides_call_and_are_answered_at_once(connect: Connect) -> None:
    everybody = Barrier(20)

    def handler(method: str) -> Handler:
        def meet(*, number: int) -> Any:
            everybody.wait(TIMEOUT_S)
            return {"method": method, "number": number}

        return meet

    results: dict[tuple[int, int], Any] = {}

    def call(side: int, number: int) -> None:
        results[side, number] = pair[side].call(f"of {side}", {"number": number})

    pair = connect({"of 1": handler("of 1")}, {"of 0": handler("of 0")})
    threads = [Thread(target=call, args=(side, number)) for side in (0, 1) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {
        (side, number): {"method": f"of {side}", "number": number}
        for side in (0, 1)
        for number in range(10)
    }


def test_files_come_with_a_call_and_are_closed_after_it(connect: Connect) -> None:
    seen: list[int] = []

    def read(first: int, second: int, *, size: int) -> list[str]:
        seen.extend([first, second])
        return [os.pread(descriptor, size, 0).decode() for descriptor in (first, second)]

    caller, _ = connect({}, {"read": read})
    with tempfile.TemporaryFile() as file:
        file.write(b"text")
        file.flush()
        twice = [file.fileno()] * 2
        assert caller.call("read", {"size": 3}, twice) == ["tex", "tex"]
    for descriptor in seen:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_our_errors_are_raised_at_the_caller_and_others_show_nothing_of_the_inside(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise NotServedError("no such model")

    def fail() -> None:
        raise RuntimeError("a secret")

    caller, _ = connect({}, {"refuse": refuse, "fail": fail})
    with pytest.raises(NotServedError, match="^no such model$"):
        caller.call("refuse")
    with pytest.raises(PeerError) as failure:
        caller.call("fail")
    assert "secret" not in str(failure.value)
    assert "a secret" in caplog.text
    with pytest.raises(PeerError):
        caller.call("a method that it does not have")


def test_a_result_that_comes_too_late_is_dropped_and_the_next_is_right(connect: Connect) -> None:
    go_on = Event()

    def slow() -> str:
        go_on.wait(TIMEOUT_S)
        return "too late"

    caller, _ = connect({}, {"slow": slow, "quick": lambda: "quick", "echo": lambda number: number})
    with pytest.raises(TimeoutError):
        caller.call("slow", timeout_s=0.01)
    assert caller.call("quick") == "quick"
    go_on.set()
    assert [caller.call("echo", {"number": n}) for n in range(3)] == [0, 1, 2]


def test_a_call_need_not_be_waited_for(connect: Connect) -> None:
    go_on = Event()
    caller, _ = connect({}, {"beat": lambda: go_on.wait(TIMEOUT_S)})
    result = caller.call_soon("beat")
    assert not result.done()
    go_on.set()
    assert result.result(TIMEOUT_S) is True


def test_a_peer_that_goes_fails_the_calls_that_wait_and_those_that_come() -> None:
    ended, called = Event(), Event()

    def never() -> None:
        called.set()
        ended.wait(TIMEOUT_S)

    own, other = connection_pair()
    caller = RpcChannel(own, {}, on_end=ended.set)
    peer = RpcChannel(Connection(other), {"never": never})
    failures: list[Any] = []

    def call() -> None:
        try:
            caller.call("never")
        except ConnectionClosedError as error:
            failures.append(error)

    thread = Thread(target=call)
    thread.start()
    assert called.wait(TIMEOUT_S)
    peer.end()
    thread.join()
    assert len(failures) == 1
    assert ended.wait(TIMEOUT_S)
    with pytest.raises(ConnectionClosedError):
        caller.call("more")


def test_without_a_thread_left_a_call_fails_and_those_that_need_none_and_later_ones_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Thread.start

    def start_no_call(thread: Thread) -> None:
        if thread.name == "rpc-call":
            raise RuntimeError("can't start new thread")
        start(thread)

    own, other = connection_pair()
    handlers: Handlers = {"slow": lambda _: 1, "quick": lambda: 2}
    caller, called = RpcChannel(own, {}), RpcChannel(Connection(other), handlers, quick={"quick"})
    with tempfile.TemporaryFile() as file:
        with monkeypatch.context() as full:
            full.setattr(Thread, "start", start_no_call)
            with pytest.raises(ShortageError, match="can start no thread"):
                caller.call("slow", {}, [file.fileno()])
            assert caller.call("quick") == 2
        assert caller.call("slow", {}, [file.fileno()]) == 1
    caller.end()
    called.end()
