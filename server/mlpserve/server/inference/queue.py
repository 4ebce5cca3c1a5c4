"""Queue of parsed requests that wait for their network, in the order of their turns.

Callers share the server by rows, so that one who sends much does not keep the others waiting. This
is self-clocked fair queuing: the next request of a caller has the tag ``F = max(v, F') + rows``,
with F' the tag of the one before it, and v that of the request that was taken last. The lowest tag
has its turn first, and of equal ones the oldest. So who has taken nothing for a while is soon next,
those who wait for long take turns, and as v grows with all that is taken, no crowd of newcomers can
keep anybody waiting for ever.
Source: Golestani, A Self-Clocked Fair Queueing Scheme for Broadband Applications (1994), section 3.

Priorities choose which request of a caller is its next. They are no concern of other callers.

Memory is shared by the same thought; see `mlpserve.server.inference.fair_share`. A caller of whom
alone requests wait may have all the room. But what it has beyond its share is dropped, the newest
first, when somebody else comes who needs the room within a share of their own.
"""

import logging
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic_ns
from typing import Any, Final, TypeAlias

from mlpserve.server.inference.explanation import in_parts
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.inference.pace import Pace
from mlpserve.server.inference.refusals import (
    is_late,
    no_room,
    pushed_out,
    why_unwanted,
    will_be_late,
)
from mlpserve.server.inference.request import ParsedRequest
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.request_record import BatchTiming

logger = logging.getLogger(__name__)

# Of other models or data types; with more of them, looking further would cost more than it joins.
_MAX_PASSED_OVER: Final = 256
# So many times as long as a pass is expected to take must be left when it begins: an answer has to
# be written and sent as well, and one that comes late was computed in vain.
_MARGIN: Final = 1.5
# Of all room, what is made free at once, at least: looking for the newest ones takes a while.
_PUSHED_OUT_SHARE: Final = 1 / 16
_MAX_OLD_LINES: Final = 256  # of callers of whom nothing waits

_Request: TypeAlias = ParsedRequest[Any]
# A request in its place: its priority, and a number that no other has, so that requests themselves
# are never compared. A plain tuple, because one with names takes ten times as long.
_Place: TypeAlias = tuple[int, int, _Request]
# The turn of a line: the tag of its next request, a number that no other has, and the line.
_Turn: TypeAlias = "tuple[int, int, _Line]"


class _Line:
    """What one caller has waiting.

    Attributes:
        waiting: A heap.
        start: The tag of its next request, less the rows of that.
        turn: That of its next request; others of it in the heap of turns are not valid any more.
    """

    __slots__ = ("start", "turn", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Place] = []
        self.start = 0
        self.turn: _Turn | None = None


class RowQueue:
    """Requests that wait for the next pass. For one thread at a time.

    Callers share by rows. Of a caller's own, those of a higher priority come first, and of the same
    the oldest.

    Args:
        max_batch_rows: Requests are joined up to so many rows; one that has as many goes alone.
        max_queue_rows: So many rows may wait. A request finds room in an empty queue always.
        counters: Where requests are counted that get no turn; in those of its own by default.
    """

    def __init__(
        self, *, max_batch_rows: int, max_queue_rows: int, counters: Counters | None = None
    ) -> None:
        self._counters = Counters() if counters is None else counters
        self._max_batch_rows = max_batch_rows
        self._waiting = 0  # so many requests
        self._turns: list[_Turn] = []  # a heap
        self._lines: dict[str | bytes, _Line] = {}
        self._numbers = count()
        self._room = FairShare(max_queue_rows)  # for the rows that wait
        # The numbers of those that were let in beyond their caller's share, and wait.
        self._beyond: set[int] = set()
        self._virtual_time = 0
        self._pace = Pace(max_batch_rows // 2)

    def __bool__(self) -> bool:
        """Return whether any request waits."""
        return self._waiting > 0

    def depth(self) -> tuple[int, int]:
        """Return how many requests wait, and how many rows; safe to call from any thread."""
        return self._waiting, self._room.taken

    def has_room(self, rows: int, caller: str | bytes = "") -> bool:
        """Return whether a request of so many rows is within a caller's share of the queue.

        What is within it is never dropped for others. ``put`` takes more of a caller who is alone.
        """
        return self._room.is_free(caller, rows)

    def put(self, request: _Request) -> None:
        """Let a request wait for its turn; an explanation in parts, each for a turn of its own.

        Raises:
            OverloadedError: It does not fit; it was not put.
            ExpiredError: Its deadline will pass before it is computed; it was not put.
        """
        rows, record = request.rows, request.record
        caller = record.caller
        is_beyond = not self.has_room(rows, caller) and not self._makes_room(request)
        waiting = self._room.taken
        if waiting and (waiting + rows) * self._pace.seconds_per_row > record.remaining_s:
            late = will_be_late(self._room, request, self._pace.seconds_per_row)
            if late is not None:
                self._count_failed(request)
                raise late
        if request.explanation is None:
            self._join(request, is_beyond=is_beyond)
        else:
            self._join_parts(request, is_beyond=is_beyond)

    def _join_parts(self, whole: _Request, *, is_beyond: bool) -> None:
        for part in in_parts(whole, self._max_batch_rows):
            try:
                self._join(part, is_beyond=is_beyond)
            except Exception:
                if whole.outcome is None:  # else a part before this one has told it
                    raise
                return

    def _makes_room(self, request: _Request) -> bool:
        """Make room by dropping what nobody waits for, and what is beyond the share of others.

        Returns:
            Whether the request is within its caller's share now; else there is room beyond it.

        Raises:
            OverloadedError: There is no room at all.
        """
        rows, caller = request.rows, request.record.caller
        now_ns = monotonic_ns()
        self._drop_where(lambda place: why_unwanted(place[-1], now_ns))
        if self.has_room(rows, caller):
            return True
        if self._room.is_left(caller, rows):
            return False
        chosen = self._to_push_out(rows, caller)
        if chosen:
            self._drop_where(lambda place: pushed_out() if place[1] in chosen else None)
        if not self.has_room(rows, caller):
            self._count_failed(request)
            raise no_room(self._room, request)
        return True

    def _to_push_out(self, rows: int, caller: str | bytes) -> set[int]:
        """Return the numbers of requests, the newest beyond their callers' shares.

        Without them there is room for so many rows of a caller; none where that cannot be.
        """
        beyond = [
            (number, request.rows)
            for other, line in self._lines.items()
            if self._beyond and other != caller
            for _, number, request in line.waiting
            if number in self._beyond
        ]
        room = self._room
        lacking = room.taken + rows + room.taken_by(caller) - room.most
        if sum(its_rows for _, its_rows in beyond) < lacking:
            return set()
        lacking, found = max(lacking, int(room.most * _PUSHED_OUT_SHARE)), set()
        for number, its_rows in sorted(beyond, reverse=True):
            if lacking > 0:
                found.add(number)
                lacking -= its_rows
        return found

    def _join(self, request: _Request, *, is_beyond: bool) -> None:
        rows, caller = request.rows, request.record.caller
        number = next(self._numbers)
        place = (request.priority, number, request)
        try:
            line = self._lines.get(caller)
            if line is None:
                line = self._lines[caller] = _Line()
            if line.waiting:
                heappush(line.waiting, place)
                if line.waiting[0][1] == number:
                    self._give_turn(line)
            else:  # written out, because this is so for most requests
                line.waiting.append(place)
                line.start = max(line.start, self._virtual_time)
                line.turn = turn = (line.start + rows, number, line)
                heappush(self._turns, turn)
            if is_beyond:
                self._beyond.add(number)
            self._waiting += 1
            self._room.take(caller, rows)
        except Exception as error:
            self._start_anew(error, but=request)
            raise

    def take(self) -> list[_Request]:
        """Remove and return the requests that are to go through their network together.

        These are the one whose turn it is and all that can be joined to it. Those that nobody waits
        for any more are removed as well, and told so, as are those that would be late. But of these
        the last one is computed: only so is it found out that passes are quicker than expected.

        Never raises: an error in here is the outcome of all that wait. So nobody is left waiting,
        and what brought it about is gone.
        """
        taken: list[_Place] = []
        try:
            return self._take(taken)
        except Exception as error:  # noqa: BLE001 - each is told
            self._start_anew(error, taken)
            return []

    def _take(self, taken: list[_Place]) -> list[_Request]:
        """Do what ``take`` does, and note in ``taken`` what is no longer among those that wait."""
        group: list[_Request] = []
        passed_over: list[tuple[_Line, _Place]] = []
        rows, now_ns = 0, monotonic_ns()
        pass_s = min(self._room.taken, self._max_batch_rows) * self._pace.seconds_per_row
        while self._turns and rows < self._max_batch_rows:
            turn = heappop(self._turns)
            tag, _, line = turn
            if line.turn is not turn:
                continue
            place = heappop(line.waiting)
            taken.append(place)
            request = place[-1]
            line.start = tag
            if line.waiting:
                self._give_turn(line)
            is_too_much = rows + request.rows > self._max_batch_rows
            if group and (is_too_much or not request.goes_with(group[0])):
                passed_over.append((line, place))
                if len(passed_over) == _MAX_PASSED_OVER:
                    break
                continue
            self._virtual_time = max(self._virtual_time, tag)
            self._note_gone(place)
            reason = why_unwanted(request, now_ns)
            if reason is not None:
                self._drop(request, reason)
            elif self._waiting and request.left_s(now_ns) < pass_s * _MARGIN:
                self._drop(request, is_late(pass_s))
            else:
                group.append(request)
                rows += request.rows
        if passed_over:
            self._put_back(passed_over)
        self._forget_old_lines()
        return group

    def learn_pace(self, timing: BatchTiming | None) -> None:
        """Note how long a pass took, if there was one, and what was done between two of them."""
        self._pace.learn(timing, is_busy=self._waiting > 0)

    def _drop_where(self, reason: Callable[[_Place], Exception | None]) -> None:
        """Drop the requests that there is a reason for. Never raises."""
        all_places = [place for line in self._lines.values() for place in line.waiting]
        try:
            for line in list(self._lines.values()):
                self._drop_of_line(line, reason)
        except Exception as error:  # noqa: BLE001 - each is told
            self._start_anew(error, all_places)

    def _start_anew(
        self, error: Exception, places: Sequence[_Place] = (), *, but: _Request | None = None
    ) -> None:
        """Empty the queue after an error that may have left it in any state.

        Args:
            error: The outcome of all that wait.
            places: Of requests that may be in no line any more.
            but: A request whose caller is told in another way.
        """
        waiting = [*places, *(place for line in self._lines.values() for place in line.waiting)]
        self._waiting, self._turns, self._lines = 0, [], {}
        self._room, self._beyond = FairShare(self._room.most), set()
        for *_, request in waiting:
            if request.outcome is None and request is not but:
                request.finish(error)

    def _drop_of_line(self, line: _Line, reason: Callable[[_Place], Exception | None]) -> None:
        waiting, line.waiting = line.waiting, []
        for place in waiting:
            why = reason(place)
            if why is None:
                line.waiting.append(place)
            else:
                self._note_gone(place)
                self._drop(place[-1], why)
        if len(line.waiting) < len(waiting):
            heapify(line.waiting)
            self._give_turn(line)

    def _note_gone(self, place: _Place) -> None:
        """Note that a request does not wait any more."""
        *_, number, request = place
        self._waiting -= 1
        self._room.give_back(request.record.caller, request.rows)
        self._beyond.discard(number)

    def _give_turn(self, line: _Line) -> None:
        """Have the next request of a line, if any, wait for its turn; no other of it does then."""
        line.turn = None
        if line.waiting:
            tag = line.start + line.waiting[0][-1].rows
            line.turn = turn = (tag, next(self._numbers), line)
            heappush(self._turns, turn)

    def _put_back(self, passed_over: Sequence[tuple[_Line, _Place]]) -> None:
        """Give requests their places back, as if the others had been before them."""
        for line, place in passed_over:
            heappush(line.waiting, place)
            line.start -= place[-1].rows
        for line in {line for line, _ in passed_over}:
            self._give_turn(line)

    def _forget_old_lines(self) -> None:
        """Forget lines that say nothing any more, once there are many."""
        if len(self._lines) > 2 * self._room.callers + _MAX_OLD_LINES:
            lines = self._lines.items()
            self._lines = {
                who: line for who, line in lines if line.waiting or line.start > self._virtual_time
            }

    def _drop(self, request: _Request, reason: Exception) -> None:
        self._count_failed(request)
        request.finish(reason)

    def _count_failed(self, request: _Request) -> None:
        ns = monotonic_ns() - request.record.arrived_ns
        try:
            self._counters.add_failed(request.model, requests=1, ns=ns)
        except Exception:  # whoever waits is to be told all the same
            logger.exception("a request that failed could not be counted")
