"""Hot methods and their calls: how the lane asks grpcio's core for a call, and ends it.

For the lane's thread only.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # private, so not in the types

from mlpserve.server.errors import ExpiredError
from mlpserve.server.grpc_api import arrival

if TYPE_CHECKING:
    from mlpserve.server.grpc_api.fast_lane.lane import FastLane

# Requests for further calls of a method that are open at once: so many calls may come in without a
# round trip through this thread.
_OPEN_REQUESTS: Final = 32
_NO_FLAGS: Final = 0


class HotMethod:
    """One hot method, in the lane's thread.

    Args:
        lane: The lane that it is in.
        name: Its full name.
    """

    __slots__ = ("_lane", "_requested", "_short_name", "name")

    def __init__(self, lane: "FastLane", name: str) -> None:
        self._lane = lane
        self.name = name
        self._short_name = name.rpartition("/")[2]
        self._requested = 0

    def request_calls(self) -> None:
        """Ask for further calls, until as many are asked for as are to be open."""
        while self._requested < _OPEN_REQUESTS:
            if not self._lane.request_call(self.name, self._on_call):
                break
            self._requested += 1

    def give_up(self, error: Exception) -> None:
        """Log an error."""
        arrival.log_failure(error)

    def _on_call(self, event: Any) -> None:  # noqa: ANN401
        self._requested -= 1
        self._lane.attempt(self.request_calls)
        if not event.success:  # the server is stopping, and this was a request for a call
            return
        try:
            call = HotCall(event, self._lane, self._short_name)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            arrival.end_badly(event.call, error)
        else:
            call.attempt(self._lane.begin, call)


class HotCall:
    """One call of a hot method, in the lane's thread.

    Args:
        event: The call's first event.
        lane: The lane that it is in.
        method: The name of the method.

    Attributes:
        method: The name of the method, without that of its service.
        metadata: What the caller sent along: pairs of a key and a value.
        caller: Who asks: the connection, or what admits the call knows better.
        is_admitted: Whether it holds a place, and may send its request.
    """

    __slots__ = (
        "_call",
        "_deadline_s",
        "_is_cancelled",
        "_is_ended",
        "_is_watched",
        "_lane",
        "caller",
        "is_admitted",
        "metadata",
        "method",
    )

    def __init__(self, event: Any, lane: "FastLane", method: str) -> None:  # noqa: ANN401
        self.method = method
        self._call = event.call
        self.metadata: Sequence[tuple[str, str | bytes]] = event.invocation_metadata
        self.caller: str | bytes = event.call.peer()
        self.is_admitted = False
        # Once, because the wall clock may be set before the call has ended.
        self._deadline_s = time.monotonic() + lane.seconds_until(event.call_details.deadline)
        self._lane = lane
        self._is_cancelled = False
        self._is_ended = False  # or is about to end: its status was handed to gRPC
        self._is_watched = False

    def start(self) -> None:
        """Ask for the request."""
        self._ask((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._on_message)
        self._lane.late.add(self)

    def refuse_late(self, error: ExpiredError) -> None:
        """End the call, whose request does not come any more. Never raises."""
        self.attempt(self._lane.work.refuse, self, error)

    def watch(self) -> None:
        """Ask to be told when the caller goes."""
        if not self._is_watched:
            self._ask((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._on_close)
            self._is_watched = True

    def remaining_s(self) -> float:
        """Return the seconds until the call's deadline."""
        return self._deadline_s - time.monotonic()

    def is_wanted(self) -> bool:
        """Return whether the caller still waits."""
        return not self._is_cancelled and self._deadline_s > time.monotonic()

    def attempt(self, step: Callable[..., None], *arguments: object) -> None:
        """Take a step; where it fails, the call ends with an error. Never raises."""
        try:
            step(*arguments)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """End the call, if that was not done, and give back its place. Never raises."""
        if self._is_ended:
            arrival.log_failure(error)
        else:
            self._is_ended = True
            arrival.end_badly(self._call, error)
        self._lane.attempt(partial(self._lane.end, self))

    def answer(self, data: bytes) -> None:
        """End the call well."""
        message = cygrpc.SendMessageOperation(data, _NO_FLAGS)
        self._end(cygrpc.StatusCode.ok, b"", message)

    def fail(
        self, code: grpc.StatusCode, details: str, metadata: Sequence[tuple[str, str]] = ()
    ) -> None:
        """End the call with a status other than OK.

        Args:
            code: The status.
            details: Its message.
            metadata: What is sent along.
        """
        self._end(code.value[0], details.encode(), metadata=metadata)

    def _end(
        self,
        code: int,
        details: bytes,
        *message: cygrpc.SendMessageOperation,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        if self._is_ended:
            return
        operations = (
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            *message,
            cygrpc.SendStatusFromServerOperation(metadata, code, details, _NO_FLAGS),
        )
        if not self._is_watched:  # to be told once is what a call needs in any case
            operations = (*operations, cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS))
        self._ask(operations, self._on_sent)
        self._is_ended = self._is_watched = True

    def _ask(self, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> None:
        self._call.start_server_batch(operations, tag)
        self._lane.events_due += 1

    def _on_message(self, event: Any) -> None:  # noqa: ANN401
        data = event.batch_operations[0].message()
        if not self._lane.late.discard(self):  # it was too late
            return
        if data is None:
            self.fail(grpc.StatusCode.UNIMPLEMENTED, arrival.NO_REQUEST)
        else:
            self._lane.work.accept(data, self)

    def _on_close(self, event: Any) -> None:  # noqa: ANN401
        self._is_cancelled = event.batch_operations[0].cancelled()

    def _on_sent(self, _event: Any) -> None:  # noqa: ANN401
        self._lane.end(self)
