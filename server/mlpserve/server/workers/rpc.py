"""Calls between two processes, in both directions at once over one channel.

    call -> {"call": 7, "method": "prepare", "arguments": {...}}  -> a thread of the peer handles it
    call <- {"answer": 7, "result": {...}}  or  {"answer": 7, "error": [KIND, TEXT]}

Knows nothing of what is asked.
"""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from threading import Lock, Thread
from typing import Any, Final, TypeAlias

from mlpserve.server import errors
from mlpserve.server.workers.connection import Connection, ConnectionClosedError, Content, Message

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[str, Content, Sequence[int]], Content]

_NO_ARGUMENTS: Final[Content] = {}
_INTERNAL: Final = "internal error; the log of the process that was asked has the cause"


class PeerError(Exception):
    """The peer could not do what was asked, and that is nobody's fault but its own."""


class RpcChannel:
    """This process's side of a conversation.

    Safe to use from many threads.

    Args:
        channel: Used, and closed, by this conversation only.
        handle: Answers a call of the peer: takes the method, its arguments and descriptors, which
            are closed when it returns; returns the result. Runs in a thread of its own for each
            call. An error of `mlpserve.server.errors` is raised again at the caller; any other is
            logged here, and raised there as a `PeerError`.
        on_end: Called once, from a thread of the conversation, when the peer is gone; but not after
            this side has ended the conversation.
    """

    def __init__(
        self, channel: Connection, handle: Handler, *, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._channel = channel
        self._handle = handle
        self._on_end = on_end
        self._numbers = count()
        self._lock = Lock()
        self._waiting: dict[int, Future[Content]] = {}
        self._has_ended = False
        self._is_ending = False
        Thread(target=self._listen, name="conversation", daemon=True).start()

    def call(
        self,
        method: str,
        arguments: Content = _NO_ARGUMENTS,
        descriptors: Sequence[int] = (),
        *,
        timeout_s: float | None = None,
    ) -> Content:
        """Ask the peer, and wait for its answer.

        Args:
            method: What is asked.
            arguments: With what.
            descriptors: Of open files, which the peer is to have too.
            timeout_s: Seconds to wait at most; None for as long as the peer lives.

        Raises:
            ServerError: The peer raised it.
            PeerError: The peer failed.
            ConnectionClosedError: The peer is gone.
            TimeoutError: It took too long. An answer that comes later is dropped.
        """
        number, answer = self._expect_answer()
        try:
            content = {"call": number, "method": method, "arguments": arguments}
            self._channel.send(content, descriptors)
            return answer.result(timeout_s)
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def ask(self, method: str) -> "Future[Content]":
        """Ask the peer; return what will have its answer, or its error as ``call`` raises it.

        Raises:
            ConnectionClosedError: The peer is gone.
        """
        number, answer = self._expect_answer()
        self._channel.send({"call": number, "method": method, "arguments": _NO_ARGUMENTS})
        return answer

    def end(self) -> None:
        """Say no more: the peer finds that this side is gone, and calls that wait here fail."""
        self._is_ending = True
        self._channel.hang_up()

    def _expect_answer(self) -> "tuple[int, Future[Content]]":
        answer: Future[Content] = Future()
        with self._lock:
            if self._has_ended:
                raise ConnectionClosedError("the peer is gone")
            number = next(self._numbers)
            self._waiting[number] = answer
        return number, answer

    def _listen(self) -> None:
        try:
            while True:
                self._take(self._channel.receive())
        except ConnectionClosedError as error:
            self._take_end(error)
        except Exception as error:
            logger.exception("a conversation between processes failed")
            self._take_end(ConnectionClosedError(str(error)))
        self._channel.hang_up()
        self._channel.close()
        if not self._is_ending:
            self._on_end()

    def _take(self, message: Message) -> None:
        if "call" in message.content:
            Thread(target=self._answer, args=(message,), name="answer", daemon=True).start()
            return
        with self._lock:
            answer = self._waiting.pop(message.content["answer"], None)
        if answer is None:
            return  # nobody waits for it any more
        if "error" in message.content:
            answer.set_exception(_error(*message.content["error"]))
        else:
            answer.set_result(message.content["result"])

    def _take_end(self, error: ConnectionClosedError) -> None:
        with self._lock:
            self._has_ended = True
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for answer in waiting:
            answer.set_exception(error)

    def _answer(self, message: Message) -> None:
        content = message.content
        answer: dict[str, Any] = {"answer": content["call"]}
        try:
            answer["result"] = self._result(message)
        except errors.ServerError as error:
            answer["error"] = [type(error).__name__, str(error)]
        except Exception:
            logger.exception("%s failed", content["method"])
            answer["error"] = [PeerError.__name__, _INTERNAL]
        finally:
            for descriptor in message.descriptors:
                os.close(descriptor)
        with suppress(ConnectionClosedError):  # then nobody waits
            self._channel.send(answer)

    def _result(self, message: Message) -> Content:
        if not message.is_whole:
            raise errors.ShortageError("the process has too many files open")
        content = message.content
        return self._handle(content["method"], content["arguments"], message.descriptors)


def _error(kind: str, text: str) -> Exception:
    """Return the error that the peer raised."""
    found = getattr(errors, kind, PeerError)
    error: Exception = found(text)
    return error
