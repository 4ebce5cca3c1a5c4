"""Streams of requests: batches are sent as they come, and kept until they are answered."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from threading import Lock
from typing import Final, Protocol

import numpy.typing as npt

from mlpserve.client.arguments import shown
from mlpserve.client.arrays import as_wire_array
from mlpserve.client.errors import ServerFaultError, invalid_argument
from mlpserve.client.requests import ModelSelector, each_batch, encode_request

# So many batches of a stream are sent, and kept, ahead of the answers.
MAX_UNANSWERED: Final = 16


class Room(Protocol):
    """Room for requests that are not answered yet."""

    async def taken(self) -> bool:
        """Wait for room and take it; return whether the call still goes on."""


class Turns(Protocol):
    """Turns at the caller's iterator of batches, which may be asked by one call at a time."""

    async def take(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` to its end, also where the call that wanted it ends first."""

    async def close(self) -> None:
        """Give up what runs, if it can be given up."""


class StreamRequests:
    """The requests of a stream, made from batches as they are asked for.

    A call that breaks may be followed by another: it begins with what was not answered, and goes
    on with the batches after it.

    gRPC swallows what an iterator of requests raises. So a failure ends the requests, and is kept
    for whoever reads the answers.

    Args:
        batches: Each as ``images`` of ``Client.predict``, or an array of all images.
        selector: What is to answer.
        turns: Of one stream.

    Raises:
        InvalidRequestError: The batches cannot be iterated over.
    """

    def __init__(
        self,
        batches: Iterable[npt.ArrayLike] | AsyncIterable[npt.ArrayLike],
        selector: ModelSelector,
        turns: Turns,
    ) -> None:
        if not isinstance(batches, Iterable | AsyncIterable):
            raise invalid_argument("batches", "an iterable of arrays of images", shown(batches))
        self._batches = each_batch(batches)
        self._selector = selector
        self._turns = turns
        # One thread of gRPC's sends, another reads answers.
        self._lock = Lock()
        self._unanswered: deque[tuple[int, bytes]] = deque()
        self._sent = 0  # of those, over this call
        self._call = 0
        self._failure: BaseException | None = None
        self._are_all_taken = False

    def encoded(self, room: Room) -> AsyncGenerator[bytes, None]:
        """Return the requests of the call that is made now, each when there is room for it."""
        return self._encoded(room, self._call)

    async def _encoded(self, room: Room, call: int) -> AsyncGenerator[bytes, None]:
        while await room.taken():
            while (request := self._unsent(call)) is None:
                if call != self._call or self._is_at_end:
                    return
                await self._turns.take(self._take_batch)
            yield request

    def _unsent(self, call: int) -> bytes | None:
        """Return the next request that a call has not sent yet; None where there is none."""
        with self._lock:
            if call != self._call or self._sent == len(self._unanswered):
                return None
            self._sent += 1
            return self._unanswered[self._sent - 1][1]

    async def _take_batch(self) -> None:
        """Take the caller's next batch, unless another call has just taken one."""
        if self._sent < len(self._unanswered) or self._is_at_end:
            return
        try:
            images = as_wire_array(await anext(self._batches))
            request = encode_request(images, self._selector)
        except StopAsyncIteration:
            self._are_all_taken = True
        except (GeneratorExit, asyncio.CancelledError):  # the stream is over
            raise
        except BaseException as error:  # noqa: BLE001 - raised again by check_end
            self._failure = error
        else:
            with self._lock:
                self._unanswered.append((len(images), request))

    @property
    def _is_at_end(self) -> bool:
        return self._are_all_taken or self._failure is not None

    def start_again(self) -> None:
        """Have the next call begin with what was not answered."""
        with self._lock:
            self._call += 1
            self._sent = 0

    async def close(self) -> None:
        """Ask for no further batch."""
        self.start_again()  # so that no call is the present one
        await self._turns.close()

    def next_count(self) -> int:
        """Return how many images the next answer is about."""
        with self._lock:
            if not self._sent:
                raise ServerFaultError("answer: expected one for each batch, got one more")
            self._sent -= 1
            return self._unanswered.popleft()[0]

    @property
    def are_answers_missing(self) -> bool:
        """Whether a batch was not answered, or not sent although nothing failed here."""
        return self._failure is None and (bool(self._unanswered) or not self._are_all_taken)

    def check_end(self) -> None:
        """Raise what kept the batches from being sent, or answered, to their end."""
        if self._failure is not None:
            raise self._failure
        if self.are_answers_missing:
            raise ServerFaultError("answer: expected one for each batch, but the stream ended")
