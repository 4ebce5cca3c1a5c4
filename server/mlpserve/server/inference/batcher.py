"""Batcher: joins requests, runs the network once for all of them, and gives each its own rows.

Batches are counted in rows, and none waits for others: what arrives while a pass runs is in the
next one. Knows neither gRPC nor protobuf.
"""

import logging
from collections.abc import Sequence
from threading import Condition
from typing import Any, Final

from mlpserve.model.compiled import Answer, Workspace
from mlpserve.server.inference.queue import RowQueue
from mlpserve.server.inference.request import ParsedRequest
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_record import BatchTiming

logger = logging.getLogger(__name__)

# Who waits is told when there is something new; where that was not possible, they look by then.
_LOOK_AGAIN_S: Final = 1.0


def run_batch(
    batch: Sequence[ParsedRequest[Any]],
    workspace: Workspace,
    recorder: Recorder,
    shadow: Shadow | None = None,
) -> BatchTiming | None:
    """Run one pass over what ``RowQueue.take`` returned, and give each request its outcome.

    Args:
        batch: Requests of one model and data type, all to be explained alike, or none of them.
        workspace: What to compute in.
        recorder: Has the pass counted.
        shadow: What is offered the answers when they are given; None for nothing.

    Returns:
        The timing of the pass; None where it tells nothing of the next: where there was nothing to
        do, it failed, or it explained. Never raises: an error is the outcome of all requests that
        have none yet.
    """
    if not batch:
        return None
    try:
        return _run_batch(batch, workspace, recorder, shadow)
    except Exception as error:
        logger.exception("a pass failed")
        for request in batch:
            if request.outcome is None:
                request.finish(error)
        return None


def _run_batch(
    batch: Sequence[ParsedRequest[Any]],
    workspace: Workspace,
    recorder: Recorder,
    shadow: Shadow | None,
) -> BatchTiming | None:
    model, clock, started_ns = batch[0].model, recorder.clock, recorder.clock()
    try:
        answers = _answers(batch, workspace)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
        if isinstance(error, MemoryError) and len(batch) > 1:  # alone, some may go through
            for request in batch:
                run_batch([request], workspace, recorder, shadow)
            return None
        timing = _timing(batch, started_ns, clock())
        taken_ns = len(batch) * timing.ended_ns - timing.arrived_ns
        recorder.counters.add_failed(model, requests=len(batch), ns=taken_ns)
        for request in batch:
            request.finish(error)
        return None
    timing = _timing(batch, started_ns, clock())
    recorder.computed(model, [request.record for request in batch], timing)
    for request, answer in zip(batch, answers, strict=True):
        request.finish(answer)
    recorder.replied(model, timing)
    if batch[0].explanation is not None:
        return None
    if shadow is not None:
        _offer(shadow, batch, answers)
    return timing


def _answers(batch: Sequence[ParsedRequest[Any]], workspace: Workspace) -> list[Answer]:
    model, explanation = batch[0].model, batch[0].explanation
    images = [request.images for request in batch]
    if explanation is None:
        return model.answers(images, workspace)
    wanted = [request.explanation for request in batch if request.explanation is not None]
    classes = [each.classes for each in wanted]
    return model.explanations(images, classes, explanation.steps, workspace)


def _timing(batch: Sequence[ParsedRequest[Any]], started_ns: int, ended_ns: int) -> BatchTiming:
    return BatchTiming(
        requests=len(batch),
        images=sum(len(request.images) for request in batch),
        arrived_ns=sum(request.record.arrived_ns for request in batch),
        read_ns=sum(request.record.read_ns for request in batch),
        started_ns=started_ns,
        ended_ns=ended_ns,
    )


def _offer(shadow: Shadow, batch: Sequence[ParsedRequest[Any]], answers: Sequence[Answer]) -> None:
    try:
        answered = [
            (request.images, answer.labels) for request, answer in zip(batch, answers, strict=True)
        ]
        shadow.offer(batch[0].model, answered)
    except Exception:  # the answers are given, and nobody is to wait because of this
        logger.exception("answers could not be offered for comparison")


def learn_pace(queue: RowQueue, timing: BatchTiming | None) -> None:
    """Have a queue note how long a pass took. Never raises: it decides about no answer."""
    try:
        queue.learn_pace(timing)
    except Exception:
        logger.exception("the pace of a pass could not be learned")


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

    def submit(self, request: ParsedRequest[Any], *, waits_for_room: bool = False) -> None:
        """Queue a request; ``wait`` for its answer then.

        Args:
            request: The request; its ``is_wanted`` is called from any thread.
            waits_for_room: Whether to wait where the queue is full, instead of being refused.

        Raises:
            OverloadedError: The queue is full.
            ExpiredError: The deadline cannot be met.
        """
        metadata = request.model.metadata
        self._recorder.read(request.record, metadata.name, metadata.version)
        with self._changed:
            while not self._queue.has_room(request.rows, request.record.caller):
                if not self._is_running:
                    # Whoever submitted these may be slow to come for their answers.
                    self._run_pass()
                elif waits_for_room and self._is_worth_waiting_for(request):
                    self._changed.wait(_LOOK_AGAIN_S)
                else:
                    break
            self._queue.put(request)

    def wait(self, request: ParsedRequest[Any]) -> Answer:
        """Wait for the answer to a request that was submitted.

        Raises:
            ExpiredError: The request was dropped, because nobody wanted its answer any more.
            Exception: Whatever the pass raised.
        """
        with self._changed:
            while request.outcome is None:
                if self._is_running:
                    self._changed.wait(_LOOK_AGAIN_S)
                elif self._queue:
                    self._run_pass()
                else:
                    raise RuntimeError("a request is neither answered nor waiting for its turn")
        if isinstance(request.outcome, Exception):
            raise request.outcome
        return request.outcome

    def _is_worth_waiting_for(self, request: ParsedRequest[Any]) -> bool:
        return request.is_wanted() and not request.has_timed_out(self._recorder.clock())

    def _run_pass(self) -> None:
        """Run one pass, while others may submit requests; holds the lock before and after."""
        batch = self._queue.take()
        self._is_running = True
        self._changed.release()
        timing = None
        try:
            timing = run_batch(batch, self._workspace, self._recorder, self._shadow)
        finally:
            self._changed.acquire()
            self._is_running = False
            self._changed.notify_all()
            learn_pace(self._queue, timing)
