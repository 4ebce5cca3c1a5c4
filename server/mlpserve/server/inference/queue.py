"""Requests that wait for their network, and in which order their turns come.

Callers share the server by rows, so that one who sends much does not keep the others waiting. This
is self-clocked fair queuing: a request gets the tag ``F = max(v, F') + rows``, with F' the tag of
its caller's last request, and v that of the request that was taken last. The lowest tag has its
turn first, and of equal ones the oldest. So who has taken nothing for a while is soon next, those
who wait for long take turns, and as v grows with all that is taken, no crowd of newcomers can keep
anybody waiting for ever.
Source: Golestani, A Self-Clocked Fair Queueing Scheme for Broadband Applications (1994), section 3.

Memory is shared by the same thought; see `mlpserve.server.inference.fair_share`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic_ns
from typing import Final, TypeAlias

from mlpserve.server.errors import ExpiredError, OverloadedError
from mlpserve.server.inference.compiled import CompiledModel, Images
from mlpserve.server.inference.decoding import Answer
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.telemetry.request_record import BatchTiming, RequestRecord
from mlpserve.server.telemetry.statistics import Statistics

logger = logging.getLogger(__name__)

Outcome: TypeAlias = Answer | Exception

HIGHEST_PRIORITY: Final = 1
NORMAL_PRIORITY: Final = 2
LOWEST_PRIORITY: Final = 3

_EXPIRED: Final = "the call was cancelled, or its deadline passed, before its turn came"
# Of other models or data types; with more of them, looking further would cost more than it joins.
_MOST_PASSED_OVER: Final = 256
_LATE: Final = "the deadline cannot be met any more: a turn takes about {:.0f} ms"
# So many times as long as a pass is expected to take must be left when it begins: an answer has to
# be written and sent as well, and one that comes late was computed in vain.
_MARGIN: Final = 1.5
_MOST_OLD_TAGS: Final = 256  # of callers of whom nothing waits
# Of the last pass in what is expected of the next, where it was slower or quicker. A machine that
# was busy for a moment is soon forgotten: what is expected is held against deadlines.
_SLOWER_SHARE: Final = 0.2
_QUICKER_SHARE: Final = 0.5


@dataclass(eq=False, slots=True)
class Request:
    """A batch of one caller, and how to reach that caller.

    Attributes:
        model: The model that is asked.
        images: (N, D), N at least 1, as ``decode_images`` returns them.
        is_wanted: Whether anybody still waits for the answer.
        reply: Takes the answer, or why there is none; called once.
        priority: From ``HIGHEST_PRIORITY`` to ``LOWEST_PRIORITY``; a higher one has its turn first.
        record: Says who asks, when that was, and how long that one waits.
    """

    model: CompiledModel
    images: Images
    is_wanted: Callable[[], bool]
    reply: Callable[[Outcome], None]
    priority: int = NORMAL_PRIORITY
    record: RequestRecord = field(default_factory=RequestRecord)


# A request in its place: its priority, its tag, and a number that no other has, so that requests
# themselves are never compared. A plain tuple, because one with names takes ten times as long.
_Place: TypeAlias = tuple[int, int, int, Request]


class RowQueue:
    """Requests that wait for the next pass. For one thread at a time.

    Those of a higher priority come first; of the same, callers share by rows, and each one's oldest
    comes first.

    Args:
        max_batch_rows: Requests are joined up to so many rows; one that has as many goes alone.
        max_queue_rows: So many rows may wait. A request finds room in an empty queue always.
        statistics: Where requests and passes are counted; in figures of its own by default.
    """

    def __init__(
        self, *, max_batch_rows: int, max_queue_rows: int, statistics: Statistics | None = None
    ) -> None:
        self.statistics = Statistics() if statistics is None else statistics
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

    def put(self, request: Request) -> None:
        """Let a request wait for its turn.

        Raises:
            OverloadedError: It does not fit; it was not put.
            ExpiredError: Its deadline will pass before it is computed; it was not put.
        """
        rows, record = len(request.images), request.record
        caller = record.caller
        if not self.has_room(rows, caller):
            self._drop_unwanted()
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

    def take(self) -> list[Request]:
        """Remove and return the requests that are to go through their network together.

        These are the one whose turn it is and all that can be joined to it. Those that nobody waits
        for any more are removed as well, and told so, as are those that would be late. But of these
        the last one is computed: only so is it found out that passes are quicker than expected.
        """
        group: list[Request] = []
        passed_over: list[_Place] = []
        rows, now_ns = 0, monotonic_ns()
        pass_s = min(self._room.taken, self._max_batch_rows) * self._seconds_per_row
        while self._waiting and rows < self._max_batch_rows:
            place = heappop(self._waiting)
            request = place[-1]
            if group and not self._fits(request, group[0], rows):
                passed_over.append(place)
                if len(passed_over) == _MOST_PASSED_OVER:
                    break
                continue
            self._virtual_time = max(self._virtual_time, place[1])
            self._room.give_back(request.record.caller, len(request.images))
            if not request.is_wanted():
                self._drop(request, _EXPIRED)
            elif self._waiting and _left_s(request, now_ns) < pass_s * _MARGIN:
                self._drop(request, _LATE.format(1000 * pass_s))
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

    def _drop_unwanted(self) -> None:
        unwanted = [place for place in self._waiting if not place[-1].is_wanted()]
        if unwanted:
            gone = {number for _, _, number, _ in unwanted}
            self._waiting = [place for place in self._waiting if place[2] not in gone]
            heapify(self._waiting)
        for *_, request in unwanted:
            self._room.give_back(request.record.caller, len(request.images))
            self._drop(request, _EXPIRED)

    def _forget_old_tags(self) -> None:
        """Forget tags that say nothing any more, once there are many."""
        if len(self._tags) > 2 * len(self._room.by_caller) + _MOST_OLD_TAGS:
            tags = self._tags.items()
            self._tags = {who: tag for who, tag in tags if tag > self._virtual_time}

    def _drop(self, request: Request, reason: str) -> None:
        self._count_failed(request)
        give(request, ExpiredError(reason))

    def _refuse_for_room(self, request: Request) -> None:
        self._count_failed(request)
        room, rows = self._room, len(request.images)
        raise OverloadedError(
            f"the server is busy: {room.taken} images wait, {room.taken_by(request.record.caller)} "
            f"of them yours, and these {rows} do not fit; at most {room.most} may wait, and of one "
            "caller no more than are left for others; try again later"
        )

    def _check_time(self, request: Request) -> None:
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

    def _count_failed(self, request: Request) -> None:
        ns = monotonic_ns() - request.record.arrived_ns
        self.statistics.failed(request.model, requests=1, ns=ns)

    def _fits(self, request: Request, first: Request, rows: int) -> bool:
        return (
            rows + len(request.images) <= self._max_batch_rows
            and request.model is first.model
            and request.images.dtype == first.images.dtype
        )


def _left_s(request: Request, now_ns: int) -> float:
    """Return the seconds until the deadline."""
    return request.record.remaining_s - (now_ns - request.record.arrived_ns) / 1e9


def give(request: Request, outcome: Outcome) -> None:
    """Give a request its outcome."""
    try:
        request.reply(outcome)
    except Exception:  # one caller that cannot be reached is no reason to forget the others
        logger.exception("an answer could not be given")
