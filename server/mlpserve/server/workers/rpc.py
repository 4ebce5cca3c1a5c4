"""Remote procedure calls between two processes, in both directions at once over one connection.

    call -> {"call": 7, "method": "prepare", "arguments": {...}}  -> a thread of the peer handles it
    call <- {"answer": 7, "result": ...}  or  {"answer": 7, "error": [KIND, TEXT]}

Each side has a table of the methods that it handles.
"""

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from threading import Lock, Thread
from typing import Any, Final, TypeAlias

from mlpserve.server import errors
from mlpserve.server.workers.connection import Connection, ConnectionClosedError, Message

logger = logging.getLogger(__name__)

# Takes the descriptors of a call one by one, and its arguments by their names; returns what JSON
# can carry.
Handler: TypeAlias = Callable[..., Any]

_NO_ARGUMENTS: Final[Mapping[str, Any]] = {}
_INTERNAL: Final = "internal error; the log of the process that was called has the cause"


class PeerError(Exception):
    """The peer could not do what it was called for, and that is nobody's fault but its own."""


class RpcChannel:
    """This process's end of the calls to, and from, one other process.

    Safe to use from many threads.

    Args:
        connection: Used, and closed, by this channel only.
        handlers: The methods that the peer may call. Each call runs in a thread of its own; its
            descriptors are closed when it returns. An error of `mlpserve.server.errors` is raised
            again at the caller; any other is logged here, and raised there as a `PeerError`.
        quick: Those of them that never wait; they are answered one by one, and need no thread.
        on_end: Called once, from a thread of the channel, when the peer is gone; but not after this
            side has ended the channel.
    """

    def __init__(
        self,
        connection: Connection,
        handlers: Mapping[str, Handler],
        *,
        quick: Collection[str] = (),
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._handlers = handlers
        self._quick = quick
        self._on_end = on_end
        self._numbers = count()
        self._lock = Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._has_ended = False
        self._is_ending = False
        Thread(target=self._listen, name="rpc", daemon=True).start()

    def call(
        self,
        method: str,
        arguments: Mapping[str, Any] = _NO_ARGUMENTS,
        descriptors: Sequence[int] = (),
        *,
        timeout_s: float | None = None,
    ) -> Any:  # noqa: ANN401 - each method has its own kind of result
        """Call a method of the peer, and wait for its result.

        Args:
            method: Its name.
            arguments: By their names, as JSON can carry them.
            descriptors: Of open files, which the peer is to have too.
            timeout_s: Seconds to wait at most; None for as long as the peer lives.

        Raises:
            ServerError: The peer raised it.
            PeerError: The peer failed.
            ConnectionClosedError: The peer is gone.
            TimeoutError: It took too long. A result that comes later is dropped.
        """
        number, result = self._send_call(method, arguments, descriptors)
        try:
            return result.result(timeout_s)
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def call_soon(self, method: str) -> "Future[Any]":
        """Call a method of the peer; return what will have its result, or its error.

        Raises:
            ConnectionClosedError: The peer is gone.
        """
        return self._send_call(method, _NO_ARGUMENTS, ())[1]

    def end(self) -> None:
        """Say no more: the peer finds that this side is gone, and calls that wait here fail."""
        self._is_ending = True
        self._connection.hang_up()

    def _send_call(
        self, method: str, arguments: Mapping[str, Any], descriptors: Sequence[int]
    ) -> "tuple[int, Future[Any]]":
        result: Future[Any] = Future()
        with self._lock:
            if self._has_ended:
                raise ConnectionClosedError("the peer is gone")
            number = next(self._numbers)
            self._waiting[number] = result
        call = {"call": number, "method": method, "arguments": arguments}
        self._connection.send(call, descriptors)
        return number, result

    def _listen(self) -> None:
        try:
            while True:
                self._take(self._connection.receive())
        except ConnectionClosedError as error:
            self._take_end(error)
        except Exception as error:
            logger.exception("rpc: the connection to another process failed")
            self._take_end(ConnectionClosedError(str(error)))
        self._connection.hang_up()
        self._connection.close()
        if not self._is_ending:
            self._on_end()

    def _take(self, message: Message) -> None:
        if "call" in message.content:
            self._take_call(message)
            return
        with self._lock:
            result = self._waiting.pop(message.content["answer"], None)
        if result is None:
            return  # nobody waits for it any more
        if "error" in message.content:
            result.set_exception(_error(*message.content["error"]))
        else:
            result.set_result(message.content["result"])

    def _take_call(self, message: Message) -> None:
        if message.content["method"] in self._quick:
            self._answer(message)
            return
        try:
            Thread(target=self._answer, args=(message,), name="rpc-call", daemon=True).start()
        except RuntimeError:  # this call fails, and the connection goes on
            self._answer(message, errors.ShortageError("the process can start no thread"))

    def _take_end(self, error: ConnectionClosedError) -> None:
        with self._lock:
            self._has_ended = True
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for result in waiting:
            result.set_exception(error)

    def _answer(self, message: Message, refusal: errors.ServerError | None = None) -> None:
        method = message.content["method"]
        answer: dict[str, Any] = {"answer": message.content["call"]}
        try:
            if refusal is not None:
                raise refusal  # noqa: TRY301
            if not message.is_whole:
                raise errors.ShortageError("the process has too many files open")  # noqa: TRY301
            handler = self._handlers[method]
            answer["result"] = handler(*message.descriptors, **message.content["arguments"])
        except errors.ServerError as error:
            answer["error"] = [type(error).__name__, str(error)]
        except Exception:
            logger.exception("rpc: %s failed", method)
            answer["error"] = [PeerError.__name__, _INTERNAL]
        finally:
            for descriptor in message.descriptors:
                os.close(descriptor)
        with suppress(ConnectionClosedError):  # then nobody waits
            self._connection.send(answer)


def _error(kind: str, text: str) -> Exception:
    """Return the error that the peer raised."""
    error: Exception = getattr(errors, kind, PeerError)(text)
    return error
