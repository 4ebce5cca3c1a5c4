import threading
from collections.abc import Callable, Iterator
from threading import Event, Semaphore

import pytest

from mlpserve.server.grpc_api.streaming import ReadAhead

MOST = 3
TIMEOUT_S = 60.0


def later(value: int) -> Callable[[], int]:
    return lambda: value


def test_responses_come_in_the_order_of_their_requests() -> None:
    assert list(ReadAhead(iter(range(100)), later, max_in_flight=MOST).responses()) == list(
        range(100)
    )


def test_several_requests_are_in_flight_before_the_first_response() -> None:
    all_in_flight, started = Event(), []

    def start(request: int) -> Callable[[], int]:
        started.append(request)
        if len(started) == MOST:
            all_in_flight.set()
        return lambda: request if all_in_flight.wait(TIMEOUT_S) else -1

    assert list(ReadAhead(iter(range(5)), start, max_in_flight=MOST).responses()) == [0, 1, 2, 3, 4]


def test_no_more_requests_are_read_than_may_be_in_flight_while_nobody_takes_responses() -> None:
    read = Semaphore(0)
    count = 0

    def requests() -> Iterator[int]:
        nonlocal count
        for number in range(1000):
            count += 1
            read.release()
            yield number

    responses = ReadAhead(requests(), later, max_in_flight=MOST).responses()
    for taken in range(20):
        assert next(responses) == taken
        # One more than may be in flight is read, and waits for room; what was taken made room.
        for _ in range(MOST + 1 if taken == 0 else 1):
            assert read.acquire(timeout=TIMEOUT_S)
        assert count <= MOST + 1 + taken


@pytest.mark.parametrize("place", ["requests", "start", "wait"])
def test_an_error_comes_after_the_responses_before_it(place: str) -> None:
    def failing(value: int, at: str) -> int:
        if (place, value) == (at, 2):
            raise LookupError(at)
        return value

    requests = (failing(number, "requests") for number in range(5))

    def start(request: int) -> Callable[[], int]:
        failing(request, "start")
        return lambda: failing(request, "wait")

    responses = ReadAhead(requests, start, max_in_flight=MOST).responses()
    assert [next(responses), next(responses)] == [0, 1]
    with pytest.raises(LookupError, match=place):
        next(responses)


def test_requests_are_read_no_further_when_nobody_takes_responses_any_more() -> None:
    read: list[int] = []

    def requests() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    ahead = ReadAhead(requests(), later, max_in_flight=MOST)
    responses = ahead.responses()
    next(responses)
    assert not ahead.is_abandoned
    responses.close()  # type: ignore[attr-defined] # it is a generator
    assert ahead.is_abandoned
    for thread in threading.enumerate():
        if thread.name == "read-ahead":
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
    assert len(read) <= MOST + 2
