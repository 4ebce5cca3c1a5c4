"""The fast lane: a public grpcio server with a loop of ours around its completion queue.

    grpc.server -- completion queue -- our loop --+-- events of hot methods: answered here
                                                  `-- all others: grpcio's own event handler

grpcio hands each call to a pool of threads. Here the thread that polls the queue answers the hot
methods itself: while events are ready it only collects requests, and when none is it has all that
it collected worked off. All else (other methods, health, TLS, limits, shutdown) is grpcio's own.

This module, `calls` and `mlpserve.server.grpc_api.arrival` touch grpcio's inside, which any release
may change. So they are used with the releases on its list and later patches of their series only,
and the lane only after `self_test` has seen it work.
"""

import math
import os
import time
from collections.abc import Callable, Iterable
from threading import Thread
from types import MethodType
from typing import Any, Final, Protocol

import grpc
from grpc import _server as grpcio
from grpc._cython import cygrpc  # type: ignore[attr-defined] # private, so not in the types

from mlpserve.server.grpc_api import arrival
from mlpserve.server.grpc_api.fast_lane.calls import HotCall, HotMethod
from mlpserve.server.grpc_api.late_calls import LateCalls
from mlpserve.server.system.threads import end_process_with

TESTED_RELEASES: Final = frozenset(
    {
        "1.76.0",
        "1.78.0",
        "1.78.2",
        "1.80.0",
        "1.80.1",
        "1.81.0",
        "1.81.1",
        "1.81.2",
        "1.82.1",
        "1.82.2",
        "1.82.3",
        "1.83.0",
        "1.83.1",
        "1.83.2",
        "1.84.0",
        "1.84.1",
        "1.84.2",
        "1.85.0",
        "1.85.1",
        "1.85.3",
    }
)

# Events after which work is done although more are ready, so that no flood of calls can prevent it.
_EVENTS_BEFORE_WORK: Final = 256
_CLOCK_IS_SET_S: Final = 1.0  # by more than any clock is corrected in between two events
# Being told when a caller goes takes a tenth of a small call. It is worth it only where calls wait
# for longer than that takes, so that some may be cancelled before their turn comes.
_LONG_S: Final = 0.002


class HotWork(Protocol):
    """Answers the calls of hot methods; used in the lane's thread only."""

    def __bool__(self) -> bool:
        """Return whether any call waits for its answer."""

    def admits(self, call: HotCall) -> bool:
        """Return whether a call may send its request, or refuse it by what its metadata says."""

    def accept(self, data: bytes, call: HotCall) -> None:
        """Take the request of a call; answer it now or in a later ``work``."""

    def ended(self, call: HotCall) -> None:
        """Take note that a call that was admitted has been answered, and its answer taken."""

    def refuse(self, call: HotCall, error: Exception) -> None:
        """End a call, whose request was not accepted, with an error."""

    def work(self) -> None:
        """Answer some of the calls that wait."""


def untested_release() -> str | None:
    """Return grpcio's release where it is not to be trusted; None where it is.

    A patch that is later than those on the list mends a fault or two of a series that was tested.
    To leave the lane for each would make a server four times slower overnight.
    """
    series = _series(grpc.__version__)
    is_tested = any(_series(tested) == series for tested in TESTED_RELEASES)
    return None if is_tested else grpc.__version__


def _series(release: str) -> list[str]:
    return release.split(".")[:2]


def _has_one_processor() -> bool:
    """Return whether the threads of gRPC that read from connections share the lane's processor.

    The first request that they read wakes the lane, which takes their place. If it gives way before
    it works, they read what else has come: so one pass answers more, and half as many switches
    between threads are needed.
    """
    return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1


class FastLane:
    """Runs a public server, and answers some unary methods of it in the thread that polls.

    Args:
        server: Not started yet. Start it with ``start`` instead of its own method; stop it with its
            own.
        methods: The full names of the hot methods, "/package.Service/Method".
        work: Answers their calls.
        late: Ends calls whose requests do not come, in the loop's thread.
        idle_s: So many seconds the loop takes for a turn at most, where nothing is to do.

    Attributes:
        work: As above.
        late: As above.
        turns: How often the loop has turned.
    """

    def __init__(
        self,
        server: grpc.Server,
        methods: Iterable[str],
        work: HotWork,
        late: LateCalls,
        *,
        idle_s: float = 1.0,
    ) -> None:
        self._state: Any = server._state  # type: ignore[attr-defined] # noqa: SLF001
        self._queue = self._state.completion_queue
        self._core = self._state.server
        self._methods = [HotMethod(self, name) for name in methods]
        self.work = work
        self.late = late
        self.events_due = 0  # of hot methods, that the queue has still to give
        self.turns = 0
        self._idle_s = idle_s
        self._to_retry: list[Callable[[], None]] = []  # failed, and tried again in the next turn
        self._makes_calls_wait = False
        self._wall_clock_ahead_s = 0.0  # of the monotonic one, before the last event
        # Those that came since the last work and have not ended; a dict, which is left in no time.
        # A flood of calls that are taken back brings no work, and would be kept until some comes.
        self._unwatched: dict[HotCall, None] = {}
        for method in self._methods:
            self._core.register_method(method.name)

    def start(self) -> None:
        """Start the server, as ``grpc.Server.start`` does."""
        state = self._state
        with state.lock:
            self._core.start()
            state.stage = grpcio._ServerStage.STARTED  # noqa: SLF001
            for other in state.registered_method_handlers:
                grpcio._request_registered_call(state, other)  # noqa: SLF001
            grpcio._request_call(state)  # noqa: SLF001
            state.due.add(self)  # grpcio ends only when nothing is due any more
            for method in self._methods:
                method.request_calls()
            thread = Thread(target=self._serve, name="fast-lane", daemon=True)
            end_process_with(thread)
            thread.start()

    def _serve(self) -> None:
        work, events, is_going_on = self.work, 0, True
        gives_way = _has_one_processor()
        has_given_way = not gives_way
        while is_going_on:
            self.turns += 1
            self._wall_clock_ahead_s = time.time() - time.monotonic()
            event = self._queue.poll(0.0 if work else time.time() + self._idle_s)
            try:
                is_quiet = event.completion_type == cygrpc.CompletionType.queue_timeout
                if not is_quiet:
                    is_going_on = self._handle(event)
                    events += 1
                elif self._state.server_deallocated:
                    grpcio._begin_shutdown_once(self._state)  # noqa: SLF001
                event = None  # it may hold the last reference to a call, which is to end now
                if is_quiet and work and not has_given_way:
                    has_given_way = True
                    os.sched_yield()
                elif is_quiet or events >= _EVENTS_BEFORE_WORK:
                    events, has_given_way = 0, not gives_way
                    self.late.end_overdue()
                    if work:
                        self._do_work()
                if self._to_retry:
                    self._retry()
            except Exception as error:  # noqa: BLE001 - all other calls depend on this loop
                arrival.log_failure(error)
            event = None

    def _do_work(self) -> None:
        started_s = time.monotonic()
        self.work.work()
        self._makes_calls_wait = bool(self.work) or time.monotonic() - started_s > _LONG_S
        if self.work:  # some of them have to wait after all
            for call in self._unwatched:
                call.watch()
        self._unwatched.clear()

    def _handle(self, event: Any) -> bool:  # noqa: ANN401 - grpcio's inside has no types
        """Handle an event; return whether there is more to serve."""
        if type(event.tag) is not MethodType:  # none of grpcio's own tags is a method
            return self._handle_others(event)
        self.events_due -= 1
        tag: Any = event.tag
        try:
            tag(event)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            tag.__self__.give_up(error)
        return self.events_due > 0 or self._is_going_on_without_us()

    def _handle_others(self, event: Any) -> bool:  # noqa: ANN401
        """Have grpcio handle an event; where it fails, end the call, and ask for the next."""
        try:
            going_on: bool = grpcio._process_event_and_continue(self._state, event)  # noqa: SLF001
        except Exception as error:  # noqa: BLE001 - all other calls depend on this loop
            if isinstance(event, cygrpc.RequestCallEvent) and event.call is not None:
                arrival.end_badly(event.call, error)
            else:
                arrival.log_failure(error)
            self.attempt(self._request_others)
            with self._state.lock:
                return not grpcio._stop_serving(self._state)  # noqa: SLF001
        return going_on

    def _request_others(self) -> None:
        """Ask for a further call of each method that is not hot, where none is asked for."""
        state = self._state
        with state.lock:
            if state.stage is not grpcio._ServerStage.STARTED:  # noqa: SLF001
                return
            for method in state.registered_method_handlers.keys() - state.due:
                grpcio._request_registered_call(state, method)  # noqa: SLF001
            if grpcio._REQUEST_CALL_TAG not in state.due:  # noqa: SLF001
                grpcio._request_call(state)  # noqa: SLF001

    def attempt(self, step: Callable[[], None]) -> None:
        """Do what must not be left undone; where it fails, again in the next turn."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - it is done later
            arrival.log_failure(error)
            self._to_retry.append(step)

    def _retry(self) -> None:
        failed, self._to_retry = self._to_retry, []
        for step in failed:
            self.attempt(step)

    def _is_going_on_without_us(self) -> bool:
        with self._state.lock:
            self._state.due.discard(self)
            return not grpcio._stop_serving(self._state)  # noqa: SLF001

    def seconds_until(self, deadline_s: float) -> float:
        """Return how long it is until the deadline of a call that the last event has brought.

        Infinite where the clock was set meanwhile: gRPC's core ends the call then, in its time.

        Args:
            deadline_s: By the wall clock, as grpcio tells it.
        """
        now_s = time.time()
        ahead_s = now_s - time.monotonic()
        is_set = abs(ahead_s - self._wall_clock_ahead_s) > _CLOCK_IS_SET_S
        return math.inf if is_set else deadline_s - now_s

    def request_call(self, method: str, tag: Callable[[Any], None]) -> bool:
        """Ask for a further call of a hot method; return False where the server is stopping."""
        with self._state.lock:
            if self._state.stage is not grpcio._ServerStage.STARTED:  # noqa: SLF001
                return False
            self._core.request_registered_call(self._queue, self._queue, method, tag)
            self.events_due += 1
            return True

    def begin(self, call: HotCall) -> None:
        """Have a new call send its request, where it may."""
        if self._makes_calls_wait:
            call.watch()
        else:
            self._unwatched[call] = None
        if self.work.admits(call):
            call.is_admitted = True
            call.start()

    def end(self, call: HotCall) -> None:
        """Take note, once, that a call has ended."""
        self._unwatched.pop(call, None)
        if call.is_admitted:
            self.work.ended(call)
            call.is_admitted = False
