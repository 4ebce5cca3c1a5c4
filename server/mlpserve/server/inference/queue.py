"""Queue of parsed requests that wait for their network, in the order of their turns.

Callers share the server by rows, so that one who sends much does not keep the others waiting. This
is self-clocked fair queuing: a request gets the tag ``F = max(v, F') + rows``, with F' the tag of
its caller's last request, and v that of the request that was taken last. The lowest tag has its
turn first, and of equal ones the oldest. So who has taken nothing for a while is soon next, those
who wait for long take turns, and as v grows with all that is taken, no crowd of newcomers can keep
anybody waiting for ever.
Source: Golestani, A Self-Clocked Fair Queueing Scheme for Broadband Applications (1994), section 3.

Memory is shared by the same thought; see `mlpserve.server.inference.fair_share`.
"""

from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic_ns
from typing import Any, Final, TypeAlias

from mlpserve.server.errors import ExpiredError, OverloadedError
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.inference.request import ParsedRequest
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.request_record import BatchTiming

_EXPIRED: Final = "the call was cancelled, or its deadline passed, before its turn came"
# Of other models or data types; with more of them, looking further would cost more than it joins.
_MAX_PASSED_OVER: Final = 256
_LATE: Final = "the deadline cannot be met any more: a turn takes about {:.0f} ms"
# So many times as long as a pass is expected to take must be left when it begins: an answer has to
# be written and sent as well, and one that comes late was computed in vain.
_MARGIN: Final = 1.5
_TIMED_OUT: Final = "Request timeout expired: the request waited longer than its 'timeout' says"
_MAX_OLD_TAGS: Final = 256  # of callers of whom nothing waits
# Of the last pass in what is expected of the next, where it was slower or quicker. A machine that
# was busy for a moment is soon forgotten: what is expected is held against deadlines.
_SLOWER_SHARE: Final = 0.2
_QUICKER_SHARE: Final = 0.5


_Request: TypeAlias = ParsedRequest[Any]
# A request in its place: its priority, its tag, and a number that no other has, so that requests
# themselves are never compared. A plain tuple, because one with names takes ten times as long.
_Place: TypeAlias = tuple[int, int, int, _Request]


class RowQueue:
    """Requests that wait for the next pass. For one thread at a time.

    Those of a higher priority come first; of the same, callers share by rows, and each one's oldest
    comes first.

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
        self._waiting: list[_Place] = []  # a heap
        self._numbers = count()
        self._room = FairShare(max_queue_rows)  # for the rows that wait
        self._virtual_time = 0
        self._tags: dict[str | bytes, int] = {}
        self._seconds_per_row = 0.0
        self._busy_since_ns: int | None = None  # when the last pass ended, if some waited then

    def __bool__(self) -> bool:
        """Return whether any request waits."""
        return bool(self._waiting)

    def depth(self) -> tuple[int, int]:
        """Return how many requests wait, and how many rows; safe to call from any thread."""
        return len(self._waiting), self._room.taken

    def has_room(self, rows: int, caller: str | bytes = "") -> bool:
        """Return whether a request of so many rows of a caller may join the queue."""
        return self._room.is_free(caller, rows)

    def put(self, request: _Request) -> None:
        """Let a request wait for its turn.

        Raises:
            OverloadedError: It does not fit; it was not put.
            ExpiredError: Its deadline will pass before it is computed; it was not put.
        """
        rows, record = len(request.images), request.record
        caller = record.caller
        if not self.has_room(rows, caller):
            self._drop_all_unwanted()
            if not self.has_room(rows, caller):
                self._refuse_for_room(request)
        waiting = self._room.taken
        if waiting and (waiting + rows) * self._seconds_per_row > record.remaining_s:
            self._check_time(request)
        tag = self._tags.get(caller, 0)
        tag = max(tag, self._virtual_time)
        self._tags[caller] = tag = tag + rows
        heappush(self._waiting, (request.priority, tag, next(self._numbers), request))
        self._room.take(caller, rows)

    def take(self) -> list[_Request]:
        """Remove and return the requests that are to go through their network together.

        These are the one whose turn it is and all that can be joined to it. Those that nobody waits
        for any more are removed as well, and told so, as are those that would be late. But of these
        the last one is computed: only so is it found out that passes are quicker than expected.
        """
        group: list[_Request] = []
        passed_over: list[_Place] = []
        rows, now_ns = 0, monotonic_ns()
        pass_s = min(self._room.taken, self._max_batch_rows) * self._seconds_per_row
        while self._waiting and rows < self._max_batch_rows:
            place = heappop(self._waiting)
            request = place[-1]
            if group and not self._fits(request, group[0], rows):
                passed_over.append(place)
                if len(passed_over) == _MAX_PASSED_OVER:
                    break
                continue
            self._virtual_time = max(self._virtual_time, place[1])
            self._room.give_back(request.record.caller, len(request.images))
            if request.has_timed_out(now_ns) or not request.is_wanted():
                self._drop_unwanted_one(request, now_ns)
            elif self._waiting and _left_s(request, now_ns) < pass_s * _MARGIN:
                self._drop(request, ExpiredError(_LATE.format(1000 * pass_s)))
            else:
                group.append(request)
                rows += len(request.images)
        for place in passed_over:
            heappush(self._waiting, place)
        self._forget_old_tags()
        return group

    def learn_pace(self, passage: BatchTiming | None) -> None:
        """Note how long a pass took, if there was one, and what was done between two of them."""
        if passage is None:
            self._busy_since_ns = None
            return
        began_ns = self._busy_since_ns or passage.started_ns
        self._busy_since_ns = passage.ended_ns if self._waiting else None
        # A pass takes time however few its rows are: of small ones nothing follows for large ones.
        rows = max(passage.images, self._max_batch_rows // 2)
        change = (passage.ended_ns - began_ns) / 1e9 / rows - self._seconds_per_row
        share = _SLOWER_SHARE if change > 0 else _QUICKER_SHARE
        self._seconds_per_row += change * (share if self._seconds_per_row else 1)

    def _drop_all_unwanted(self) -> None:
        now_ns = monotonic_ns()
        waiting, self._waiting = self._waiting, []
        for place in waiting:
            request = place[-1]
            if request.is_wanted() and not request.has_timed_out(now_ns):
                self._waiting.append(place)
            else:
                self._room.give_back(request.record.caller, len(request.images))
                self._drop_unwanted_one(request, now_ns)
        heapify(self._waiting)

    def _forget_old_tags(self) -> None:
        """Forget tags that say nothing any more, once there are many."""
        if len(self._tags) > 2 * len(self._room.by_caller) + _MAX_OLD_TAGS:
            tags = self._tags.items()
            self._tags = {who: tag for who, tag in tags if tag > self._virtual_time}

    def _drop_unwanted_one(self, request: _Request, now_ns: int) -> None:
        if request.has_timed_out(now_ns):
            self._drop(request, OverloadedError(_TIMED_OUT))
        else:
            self._drop(request, ExpiredError(_EXPIRED))

    def _drop(self, request: _Request, reason: Exception) -> None:
        self._count_failed(request)
        request.finish(reason)

    def _refuse_for_room(self, request: _Request) -> None:
        self._count_failed(request)
        room, rows = self._room, len(request.images)
        raise OverloadedError(
            f"the server is busy: {room.taken} images wait, {room.taken_by(request.record.caller)} "
            f"of them yours, and these {rows} do not fit; at most {room.most} may wait, and of one "
            "caller no more than are left for others; try again later"
        )

    def _check_time(self, request: _Request) -> None:
        """Refuse a request that will be late, in its caller's fair share of the turns."""
        record = request.record
        own = self._room.taken_by(record.caller) + len(request.images)
        by_caller = self._room.by_caller.items()
        others = (rows for caller, rows in by_caller if caller != record.caller)
        first = sum(min(rows, own) for rows in others) + own
        expected_s = first * self._seconds_per_row
        if expected_s > record.remaining_s:
            self._count_failed(request)
            remaining_ms = max(0.0, record.remaining_s) * 1000
            raise ExpiredError(
                f"the deadline cannot be met: it is in {remaining_ms:.0f} ms, and the {first} "
                f"images up to there take about {1000 * expected_s:.0f} ms; allow more time, or "
                "ask later"
            )

    def _count_failed(self, request: _Request) -> None:
        ns = monotonic_ns() - request.record.arrived_ns
        self._counters.add_failed(request.model, requests=1, ns=ns)

    def _fits(self, request: _Request, first: _Request, rows: int) -> bool:
        return (
            rows + len(request.images) <= self._max_batch_rows
            and request.model is first.model
            and request.images.dtype == first.images.dtype
        )


def _left_s(request: _Request, now_ns: int) -> float:
    """Return the seconds until the deadline."""
    return request.record.remaining_s - (now_ns - request.record.arrived_ns) / 1e9
