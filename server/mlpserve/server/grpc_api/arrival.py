"""Arrival of requests on the public gRPC API: a call gets a thread when its request has come.

grpcio gives a call a thread as soon as its headers come, and has the thread wait for the request.
So a few callers that send no request would hold all threads. Here grpcio's own event loop receives
the first request of a call, and only then is the call given to a pool:

    headers -- event loop -- request -- event loop --> pool of threads

This module touches grpcio's inside, as the fast lane does, and is used with the same releases; see
`mlpserve.server.grpc_api.fast_lane.lane`. With others, calls wait in threads.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self

import grpc
from grpc import _server as grpcio
from grpc._cython import cygrpc  # type: ignore[attr-defined] # private, so not in the types

from mlpserve.server.errors import ExpiredError
from mlpserve.server.grpc_api.late_calls import LateCalls
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.statuses import refuse
from mlpserve.server.telemetry.recorder import Recorder

logger = logging.getLogger(__name__)

NO_REQUEST: Final = "expected exactly one request message"
_NO_FLAGS: Final = 0
_FAILED: Final = "internal error; the server's log has the cause"
_TOO_MANY_ARRIVE: Final = "too many calls are open whose requests have not come; try again later"
_NO_MEMORY: Final = "the server has not enough memory left for this call; try again later"
# Sends a response, or ends the call with None.
Send = Callable[[bytes | None], None]


def end_badly(call: Any, error: Exception) -> None:  # noqa: ANN401 - of grpcio's inside
    """End a call after an error, in the way that needs least: no message, metadata or event."""
    log_failure(error)
    if isinstance(error, MemoryError):
        call.cancel(cygrpc.StatusCode.unavailable, _NO_MEMORY)
    else:
        call.cancel(cygrpc.StatusCode.internal, _FAILED)


def log_failure(error: Exception) -> None:
    """Log an error that has befallen a call, if that can be done."""
    with suppress(Exception):  # where there is no memory, there may be none for a line either
        logger.error("a call failed before it could be answered", exc_info=error)


class InlineExecutor(ThreadPoolExecutor):
    """Runs what it is given at once, in the thread that gives it: nothing of it may wait."""

    def __init__(self) -> None:
        super().__init__(1)  # which is never started

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":  # noqa: ANN401
        """Run a function."""
        function(*args, **kwargs)
        return done()


class ArrivalExecutor(ThreadPoolExecutor):
    """Gives the calls of a gRPC server to an executor, each when its first request has come.

    All handlers must be of streams of requests. Calls whose request is late are ended; those that
    stream responses may begin when they like, but for those of health.

    Args:
        executor: Runs the handlers.
        late: Ends calls that are late.
        recorder: Records these; None for health, no call of which is counted.
        room: Where callers share how many calls may arrive at once; None where they were admitted.
    """

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        late: LateCalls,
        recorder: Recorder | None = None,
        room: FairShare | None = None,
    ) -> None:
        super().__init__(1)  # which is never started
        self.executor = executor
        self.late = late
        self.recorder = recorder
        self.room = room

    def submit(self, run: Callable[..., Any], /, *args: Any, **_: Any) -> "Future[Any]":  # noqa: ANN401
        """Have the request of a call received, and the call answered then; never raises.

        Args:
            run: Runs a function with the call's context variables.
            args: The function, the call's event and state, its handler, what returns its requests,
                and what reads requests and writes responses.
        """
        try:
            _Arrival(self, run, *args).begin()
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            end_badly(args[1].call, error)
        return done()


class _Arrival:
    """The arrival of a call's first request.

    Args:
        to: What has it received.
        run: As of ``ArrivalExecutor.submit``.
        args: As there.
    """

    def __init__(self, to: ArrivalExecutor, run: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401
        self._to = to
        self._function, self._event, self._state, behavior, requests_of, *codecs = args
        requests = _Requests(requests_of(), self._state)
        answer = (self._function, self._event, self._state, behavior, lambda: requests, *codecs)
        self._answer: tuple[Any, ...] = (run, *answer)
        call = self._event.call
        self._received = grpcio._receive_message(self._state, call, codecs[0])  # noqa: SLF001
        self._caller: str = call.peer() if to.room is not None else ""

    def begin(self) -> None:
        """Have the request received."""
        call, room = self._event.call, self._to.room
        is_unary = self._function is grpcio._unary_response_in_pool  # noqa: SLF001
        if room is not None and not room.is_free(self._caller, 1):
            codes = cygrpc.StatusCode  # for a watch the same as where too many are open
            call.cancel(codes.unavailable if is_unary else codes.unimplemented, _TOO_MANY_ARRIVE)
            return
        if is_unary or room is not None:
            self._to.late.add(self)
        tag = partial(self._arrived)  # no method, by which the fast lane tells its own tags
        call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), tag)
        self._state.due.add(grpcio._RECEIVE_MESSAGE_TOKEN)  # noqa: SLF001
        if room is not None:
            room.take(self._caller, 1)

    def refuse_late(self, error: ExpiredError) -> None:
        """End the call; its handler, which runs then, finds that there is no request."""
        event, state, recorder = self._event, self._state, self._to.recorder
        try:
            code, details = grpc.StatusCode.DEADLINE_EXCEEDED, str(error)
            if recorder is not None:
                method = event.call_details.method.decode().rpartition("/")[2]
                record = recorder.arrived(method, event.invocation_metadata)
                code, details, state.trailing_metadata = refuse(recorder, record, error)
            with state.condition:
                grpcio._abort(state, event.call, code.value[0], details.encode())  # noqa: SLF001
        except Exception as failure:  # noqa: BLE001 - it is logged, and the caller told
            end_badly(event.call, failure)

    def _arrived(self, message: Any) -> Any:  # noqa: ANN401
        outcome = self._received(message)
        answer, self._answer = self._answer, ()  # which holds the call's place
        try:
            if self._to.room is not None:
                self._to.room.give_back(self._caller, 1)
            self._to.late.discard(self)
            self._to.executor.submit(*answer)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            end_badly(self._event.call, error)
        return outcome


class _Requests:
    """Iterates over the requests of a call, of which the first has come or never will.

    Args:
        requests: Those after it, grpcio's.
        state: The call's.
    """

    def __init__(self, requests: Any, state: Any) -> None:  # noqa: ANN401
        self._requests = requests
        self._state = state
        self._is_first = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._is_first:
            later: bytes = next(self._requests)
            return later
        self._is_first = False
        with self._state.condition:
            if self._state.statused:  # it was too late
                grpcio._raise_rpc_error(self._state)  # noqa: SLF001
            first: bytes = self._requests._look_for_request()  # noqa: SLF001
            return first


class Sender:
    """Sends responses of a call, and waits for nobody to take them: of several the newest is sent.

    Args:
        context: The call's.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._event: Any = context._rpc_event  # type: ignore[attr-defined] # noqa: SLF001
        self._state: Any = context._state  # type: ignore[attr-defined] # noqa: SLF001
        self._newest: bytes | None = None
        self._is_sending = False
        self._is_over = False

    @classmethod
    def of(cls, context: grpc.ServicerContext, _: Send) -> Self:
        """Return one in place of grpcio's own, which waits."""
        return cls(context)

    def __call__(self, response: bytes | None) -> None:
        """Send a response, or end the call with None after what was sent."""
        with self._state.condition:
            if response is None:
                self._is_over = True
            else:
                self._newest = response
            self._go_on()

    def _go_on(self) -> None:
        state = self._state
        if self._is_sending or not grpcio._is_rpc_state_active(state):  # noqa: SLF001
            return
        if self._newest is None:
            if self._is_over:
                grpcio._status(self._event, state, None)  # noqa: SLF001
            return
        operations = [cygrpc.SendMessageOperation(self._newest, _NO_FLAGS)]
        if state.initial_metadata_allowed:
            operations.insert(0, grpcio._get_initial_metadata_operation(state, None))  # noqa: SLF001
            state.initial_metadata_allowed = False
        self._newest, self._is_sending = None, True
        self._event.call.start_server_batch(operations, lambda _: self._sent())
        state.due.add(grpcio._SEND_MESSAGE_TOKEN)  # noqa: SLF001

    def _sent(self) -> Any:  # noqa: ANN401
        state = self._state
        with state.condition:
            outcome = grpcio._possibly_finish_call(state, grpcio._SEND_MESSAGE_TOKEN)  # noqa: SLF001
            self._is_sending = False
            self._go_on()
            return outcome


def done() -> "Future[Any]":
    """Return what has come to its end."""
    future: Future[Any] = Future()
    future.set_result(None)
    return future
