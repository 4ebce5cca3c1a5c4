"""Whose rows go through a network together, and who gets which rows of the answer.

Batches are counted in rows, and none waits for others: what arrives while a pass runs is in the
next one. Knows neither gRPC nor protobuf.
"""

import logging
from collections.abc import Callable, Sequence
from threading import Condition

from mlpserve.server.inference.compiled import CompiledModel, Images, Workspace
from mlpserve.server.inference.decoding import Answer, answers
from mlpserve.server.inference.queue import NORMAL_PRIORITY, Outcome, Request, RowQueue, give
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_record import BatchTiming, RequestRecord
from mlpserve.server.telemetry.statistics import Statistics

logger = logging.getLogger(__name__)


def answer_together(
    group: Sequence[Request],
    workspace: Workspace,
    statistics: Statistics,
    recorder: Recorder,
    shadow: Shadow | None = None,
) -> BatchTiming | None:
    """Run one pass over what ``RowQueue.take`` returned, and give everybody their own rows.

    Args:
        group: What to answer.
        workspace: What to compute in.
        statistics: Where the pass is counted.
        recorder: Is told of the pass.
        shadow: What is offered the answers when they are given; None for nothing.

    Returns:
        What is to be known of the pass; None where there was nothing to do, or it failed.
    """
    if not group:
        return None
    model, clock, started_ns = group[0].model, recorder.clock, recorder.clock()
    try:
        outcomes = answers(model, [request.images for request in group], workspace)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
        if isinstance(error, MemoryError) and len(group) > 1:  # alone, some may go through
            for request in group:
                answer_together([request], workspace, statistics, recorder, shadow)
            return None
        passage = _passage(group, started_ns, clock())
        taken_ns = len(group) * passage.ended_ns - passage.arrived_ns
        statistics.failed(model, requests=len(group), ns=taken_ns)
        for request in group:
            give(request, error)
        return None
    passage = _passage(group, started_ns, clock())
    statistics.passed(model, passage)
    recorder.computed([request.record for request in group], passage)
    for request, outcome in zip(group, outcomes, strict=True):
        give(request, outcome)
    statistics.replied(model, passage, ns=clock() - passage.ended_ns)
    if shadow is not None:
        _offer(shadow, group, outcomes)
    return passage


def _passage(group: Sequence[Request], started_ns: int, ended_ns: int) -> BatchTiming:
    """Return what is to be recorded of a pass."""
    return BatchTiming(
        requests=len(group),
        images=sum(len(request.images) for request in group),
        arrived_ns=sum(request.record.arrived_ns for request in group),
        read_ns=sum(request.record.read_ns for request in group),
        started_ns=started_ns,
        ended_ns=ended_ns,
    )


def _offer(shadow: Shadow, group: Sequence[Request], outcomes: Sequence[Answer]) -> None:
    answered = [
        (request.images, answer.labels) for request, answer in zip(group, outcomes, strict=True)
    ]
    try:
        shadow.offer(group[0].model, answered)
    except Exception:  # the answers are given, and nobody is to wait because of this
        logger.exception("answers could not be offered for comparison")


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
        record: RequestRecord | None = None,
    ) -> Ticket:
        """Hand in a request; see ``Request``.

        Args:
            model: The model that is asked.
            images: As in ``Request``.
            is_wanted: As in ``Request``; called from any thread.
            waits_for_room: Whether to wait where the queue is full, instead of being refused.
            priority: As in ``Request``.
            record: As in ``Request``; is told which model the request asks. One that nobody looks
                at where it is None.

        Raises:
            OverloadedError: The queue is full.
            ExpiredError: The deadline cannot be met.
        """
        ticket = Ticket(self)
        record = self._recorder.arrived("", None) if record is None else record
        self._recorder.read(record, model.metadata.name, model.metadata.version)
        request = Request(model, images, is_wanted, ticket.reply, priority, record)
        with self._changed:
            while not self._queue.has_room(len(images), request.record.caller):
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
        passage = None
        try:
            passage = answer_together(
                group, self._workspace, self._queue.statistics, self._recorder, self._shadow
            )
        finally:
            self._changed.acquire()
            self._queue.learn_pace(passage)
            self._is_running = False
            self._changed.notify_all()
