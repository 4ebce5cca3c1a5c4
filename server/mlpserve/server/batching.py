"""Whose rows go through a network together, and who gets which rows of the answer.

Batches are counted in rows, and none waits for others: what arrives while a pass runs is in the
next one. Knows neither gRPC nor protobuf.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition
from time import monotonic_ns
from typing import Final, TypeAlias

from mlpserve.server.compiled import CompiledModel, Images, Workspace
from mlpserve.server.errors import ExpiredError, OverloadedError
from mlpserve.server.lifecycle.shadow import Shadow
from mlpserve.server.metrics.recorder import Recorder
from mlpserve.server.metrics.records import RequestRecord
from mlpserve.server.prediction import Answer, answers
from mlpserve.server.statistics import Passage, Statistics

logger = logging.getLogger(__name__)

Outcome: TypeAlias = Answer | Exception

HIGHEST_PRIORITY: Final = 1
NORMAL_PRIORITY: Final = 2
LOWEST_PRIORITY: Final = 3

_EXPIRED: Final = "the call was cancelled, or its deadline passed, before its turn came"


@dataclass(eq=False, slots=True)
class Request:
    """A batch of one caller, and how to reach that caller.

    Attributes:
        model: The model that is asked.
        images: (N, D), N at least 1, as ``decode_images`` returns them.
        is_wanted: Whether anybody still waits for the answer.
        reply: Takes the answer, or why there is none; called once.
        priority: From ``HIGHEST_PRIORITY`` to ``LOWEST_PRIORITY``; a higher one has its turn first.
        received_ns: When the request came in, by ``time.monotonic_ns``.
        queued_ns: When it had been read.
        record: Is told when the request is computed.
    """

    model: CompiledModel
    images: Images
    is_wanted: Callable[[], bool]
    reply: Callable[[Outcome], None]
    priority: int = NORMAL_PRIORITY
    received_ns: int = field(default_factory=monotonic_ns)
    queued_ns: int = field(default_factory=monotonic_ns)
    record: RequestRecord = field(default_factory=RequestRecord)


class RowQueue:
    """Requests that wait for the next pass. For one thread at a time.

    Those of a higher priority come first, and of the same the oldest.

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
        self._max_queue_rows = max_queue_rows
        self._waiting: deque[Request] = deque()
        self._rows = 0

    def __bool__(self) -> bool:
        """Return whether any request waits."""
        return bool(self._waiting)

    def depth(self) -> tuple[int, int]:
        """Return how many requests wait, and how many rows; safe to call from any thread."""
        return len(self._waiting), self._rows

    def has_room(self, rows: int) -> bool:
        """Return whether a request of so many rows may join the queue."""
        return not self._rows or self._rows + rows <= self._max_queue_rows

    def put(self, request: Request) -> None:
        """Let a request wait for its turn.

        Raises:
            OverloadedError: It does not fit; it was not put.
        """
        rows = len(request.images)
        if not self.has_room(rows):
            self._drop_unwanted()
        if not self.has_room(rows):
            self._count_failed(request)
            raise OverloadedError(
                f"the server is busy: {self._rows} images wait, and with these {rows} it would be "
                f"more than {self._max_queue_rows}; try again later"
            )
        self._waiting.insert(self._place_of(request), request)
        self._rows += rows

    def take(self) -> list[Request]:
        """Remove and return the requests that are to go through their network together.

        These are the oldest one and all that can be joined to it. Those that nobody waits for any
        more are removed as well, and told so.
        """
        group: list[Request] = []
        passed_over: list[Request] = []
        rows = 0
        while self._waiting and rows < self._max_batch_rows:
            request = self._waiting.popleft()
            if group and not self._fits(request, group[0], rows):
                passed_over.append(request)
                continue
            self._rows -= len(request.images)
            if request.is_wanted():
                group.append(request)
                rows += len(request.images)
            else:
                self._drop(request)
        self._waiting.extendleft(reversed(passed_over))
        return group

    def _drop_unwanted(self) -> None:
        for request in [waiting for waiting in self._waiting if not waiting.is_wanted()]:
            self._waiting.remove(request)
            self._rows -= len(request.images)
            self._drop(request)

    def _drop(self, request: Request) -> None:
        self._count_failed(request)
        _reply(request, ExpiredError(_EXPIRED))

    def _count_failed(self, request: Request) -> None:
        ns = monotonic_ns() - request.received_ns
        self.statistics.failed(request.model, requests=1, ns=ns)

    def _place_of(self, request: Request) -> int:
        place = len(self._waiting)
        while place and self._waiting[place - 1].priority > request.priority:
            place -= 1
        return place

    def _fits(self, request: Request, first: Request, rows: int) -> bool:
        return (
            rows + len(request.images) <= self._max_batch_rows
            and request.model is first.model
            and request.images.dtype == first.images.dtype
        )


def answer_together(
    group: Sequence[Request],
    workspace: Workspace,
    statistics: Statistics,
    recorder: Recorder,
    shadow: Shadow | None = None,
) -> None:
    """Run one pass over what ``RowQueue.take`` returned, and give everybody their own rows.

    Args:
        group: What to answer.
        workspace: What to compute in.
        statistics: Where the pass is counted.
        recorder: Is told of the pass.
        shadow: What is offered the answers when they are given; None for nothing.
    """
    if not group:
        return
    model, started_ns, started_s = group[0].model, monotonic_ns(), recorder.clock()
    try:
        outcomes = answers(model, [request.images for request in group], workspace)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
        passage = _passage(group, started_ns)
        taken_ns = len(group) * passage.ended_ns - passage.received_ns
        statistics.failed(model, requests=len(group), ns=taken_ns)
        for request in group:
            _reply(request, error)
        return
    passage = _passage(group, started_ns)
    statistics.passed(model, passage)
    records = [request.record for request in group]
    recorder.computed(records, rows=passage.images, started_s=started_s)
    for request, outcome in zip(group, outcomes, strict=True):
        _reply(request, outcome)
    statistics.replied(model, passage, ns=monotonic_ns() - passage.ended_ns)
    if shadow is not None:
        _offer(shadow, group, outcomes)


def _passage(group: Sequence[Request], started_ns: int) -> Passage:
    """Return what is to be recorded of a pass that has just ended."""
    return Passage(
        requests=len(group),
        images=sum(len(request.images) for request in group),
        received_ns=sum(request.received_ns for request in group),
        queued_ns=sum(request.queued_ns for request in group),
        started_ns=started_ns,
        ended_ns=monotonic_ns(),
    )


def _offer(shadow: Shadow, group: Sequence[Request], outcomes: Sequence[Answer]) -> None:
    answered = [
        (request.images, answer.labels) for request, answer in zip(group, outcomes, strict=True)
    ]
    try:
        shadow.offer(group[0].model, answered)
    except Exception:  # the answers are given, and nobody is to wait because of this
        logger.exception("answers could not be offered for comparison")


def _reply(request: Request, outcome: Outcome) -> None:
    try:
        request.reply(outcome)
    except Exception:  # one caller that cannot be reached is no reason to forget the others
        logger.exception("an answer could not be given")


class Ticket:
    """What ``Batcher.submit`` gives for a request: the right to its answer."""

    def __init__(self, batcher: "Batcher") -> None:
        self._batcher = batcher
        self.outcome: Outcome | None = None

    def reply(self, outcome: Outcome) -> None:
        """Take the outcome."""
        self.outcome = outcome

    def result(self) -> Answer:
        """Wait for the answer.

        Raises:
            ExpiredError: The request was dropped, because nobody wanted its answer any more.
            Exception: Whatever the pass raised.
        """
        return self._batcher.result(self)


class Batcher:
    """Joins the requests of many threads. Has no thread of its own: those who wait run the passes.

    Safe to use from many threads. Passes run one at a time; an idle batcher runs one at once.

    Args:
        queue: Used by this batcher only.
        workspace: Used by this batcher only.
        recorder: Is told of the passes.
        shadow: What compares its answers; None for nothing.
    """

    def __init__(
        self,
        queue: RowQueue,
        workspace: Workspace,
        recorder: Recorder,
        shadow: Shadow | None = None,
    ) -> None:
        self._queue = queue
        self._workspace = workspace
        self._recorder = recorder
        self._shadow = shadow
        self._changed = Condition()
        self._is_running = False

    def submit(
        self,
        model: CompiledModel,
        images: Images,
        *,
        is_wanted: Callable[[], bool],
        waits_for_room: bool = False,
        priority: int = NORMAL_PRIORITY,
        received_ns: int | None = None,
        record: RequestRecord | None = None,
    ) -> Ticket:
        """Hand in a request; see ``Request``.

        Args:
            model: The model that is asked.
            images: As in ``Request``.
            is_wanted: As in ``Request``; called from any thread.
            waits_for_room: Whether to wait where the queue is full, instead of being refused.
            priority: As in ``Request``.
            received_ns: As in ``Request``; now where it is None.
            record: As in ``Request``; one that nobody looks at where it is None.

        Raises:
            OverloadedError: The queue is full.
        """
        ticket = Ticket(self)
        received_ns = monotonic_ns() if received_ns is None else received_ns
        request = Request(model, images, is_wanted, ticket.reply, priority, received_ns)
        if record is not None:
            request.record = record
        with self._changed:
            while not self._queue.has_room(len(images)):
                if not self._is_running:
                    # Whoever handed these in may be slow to come for their answers.
                    self._run_pass()
                elif waits_for_room and is_wanted():
                    self._changed.wait()
                else:
                    break
            self._queue.put(request)
        return ticket

    def result(self, ticket: Ticket) -> Answer:
        """Wait for the answer to a request; see ``Ticket.result``."""
        with self._changed:
            while ticket.outcome is None:
                if self._is_running:
                    self._changed.wait()
                else:
                    self._run_pass()
        if isinstance(ticket.outcome, Exception):
            raise ticket.outcome
        return ticket.outcome

    def _run_pass(self) -> None:
        """Run one pass, while others may hand in requests; holds the lock before and after."""
        self._is_running = True
        group = self._queue.take()
        self._changed.release()
        try:
            answer_together(
                group, self._workspace, self._queue.statistics, self._recorder, self._shadow
            )
        finally:
            self._changed.acquire()
            self._is_running = False
            self._changed.notify_all()
