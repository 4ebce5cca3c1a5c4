"""Streaming: several requests of one call in flight at once, answered in their order.

    requests -> a thread reads and starts them -> at most so many in flight -> finished in order

Knows neither gRPC nor what is asked.
"""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Generic, TypeVar

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class ReadAhead(Generic[_Request, _Response]):
    """Iterates over the responses to a stream of requests.

    The next request is read only when there is room for it in flight. So whoever takes responses
    slowly is sent none, and what it has sent stays with the transport, which slows it down.

    Args:
        requests: What is asked. An error of it ends the responses, after those before it.
        start: Starts to work on a request, and returns what waits for the response. Called from a
            thread of its own.
        max_in_flight: So many requests are in flight at once, those included whose responses wait
            to be taken.
    """

    def __init__(
        self,
        requests: Iterator[_Request],
        start: Callable[[_Request], Callable[[], _Response]],
        *,
        max_in_flight: int,
    ) -> None:
        self._requests = requests
        self._start = start
        self._room = Semaphore(max_in_flight)
        self._started: SimpleQueue[Callable[[], _Response] | Exception | None] = SimpleQueue()
        self.is_abandoned = False  # whether nobody takes responses any more

    def responses(self) -> Iterator[_Response]:
        """Yield the responses in the order of their requests.

        Raises:
            Exception: What ``requests``, ``start`` or the wait for a response raised.
        """
        reader = Thread(target=self._read, name="read-ahead", daemon=True)
        reader.start()
        try:
            while (wait := self._started.get()) is not None:
                if isinstance(wait, Exception):
                    raise wait
                yield wait()
                self._room.release()
        finally:
            self.is_abandoned = True
            self._room.release()  # the reader is to see it

    def _read(self) -> None:
        end: Exception | None = None
        try:
            for request in self._requests:
                self._room.acquire()
                if self.is_abandoned:
                    break
                self._started.put(self._start(request))
        except Exception as error:  # noqa: BLE001 - it is raised again, in its turn
            end = error
        self._started.put(end)
