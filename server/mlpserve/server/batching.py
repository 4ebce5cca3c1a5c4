"""Whose rows go through a network together, and who gets which rows of the answer.

Batches are counted in rows, and none waits for others: what arrives while a pass runs is in the
next one. Knows neither gRPC nor protobuf.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition
from typing import Final, TypeAlias

from mlpserve.server.compiled import CompiledModel, Images, Workspace
from mlpserve.server.errors import ExpiredError, OverloadedError
from mlpserve.server.lifecycle.shadow import Shadow
from mlpserve.server.prediction import Answer, answers

logger = logging.getLogger(__name__)

Outcome: TypeAlias = Answer | Exception

_EXPIRED: Final = "the call was cancelled, or its deadline passed, before its turn came"


@dataclass(eq=False, slots=True)
class Request:
    """A batch of one caller, and how to reach that caller.

    Attributes:
        model: The model that is asked.
        images: (N, D), N at least 1, as ``decode_images`` returns them.
        is_wanted: Whether anybody still waits for the answer.
        reply: Takes the answer, or why there is none; called once.
    """

    model: CompiledModel
    images: Images
    is_wanted: Callable[[], bool]
    reply: Callable[[Outcome], None]


class RowQueue:
    """Requests that wait for the next pass, the oldest first. For one thread at a time.

    Args:
        max_batch_rows: Requests are joined up to so many rows; one that has as many goes alone.
        max_queue_rows: So many rows may wait. A request finds room in an empty queue always.
    """

    def __init__(self, *, max_batch_rows: int, max_queue_rows: int) -> None:
        self._max_batch_rows = max_batch_rows
        self._max_queue_rows = max_queue_rows
        self._waiting: deque[Request] = deque()
        self._rows = 0

    def __bool__(self) -> bool:
        """Return whether any request waits."""
        return bool(self._waiting)

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
            raise OverloadedError(
                f"the server is busy: {self._rows} images wait, and with these {rows} it would be "
                f"more than {self._max_queue_rows}; try again later"
            )
        self._waiting.append(request)
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
                _reply(request, ExpiredError(_EXPIRED))
        self._waiting.extendleft(reversed(passed_over))
        return group

    def _drop_unwanted(self) -> None:
        for request in [waiting for waiting in self._waiting if not waiting.is_wanted()]:
            self._waiting.remove(request)
            self._rows -= len(request.images)
            _reply(request, ExpiredError(_EXPIRED))

    def _fits(self, request: Request, first: Request, rows: int) -> bool:
        return (
            rows + len(request.images) <= self._max_batch_rows
            and request.model is first.model
            and request.images.dtype == first.images.dtype
        )


def answer_together(
    group: Sequence[Request], workspace: Workspace, shadow: Shadow | None = None
) -> None:
    """Run one pass over what ``RowQueue.take`` returned, and give everybody their own rows.

    Args:
        group: What to answer.
        workspace: What to compute in.
        shadow: What is offered the answers when they are given; None for nothing.
    """
    if not group:
        return
    outcomes: Sequence[Outcome]
    try:
        outcomes = answers(group[0].model, [request.images for request in group], workspace)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
        outcomes = [error] * len(group)
    for request, outcome in zip(group, outcomes, strict=True):
        _reply(request, outcome)
    if shadow is not None:
        _offer(shadow, group, outcomes)


def _offer(shadow: Shadow, group: Sequence[Request], outcomes: Sequence[Outcome]) -> None:
    answered = [
        (request.images, outcome.labels)
        for request, outcome in zip(group, outcomes, strict=True)
        if isinstance(outcome, Answer)
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
        shadow: What compares its answers; None for nothing.
    """

    def __init__(self, queue: RowQueue, workspace: Workspace, shadow: Shadow | None = None) -> None:
        self._queue = queue
        self._workspace = workspace
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
    ) -> Ticket:
        """Hand in a request; see ``Request``.

        Args:
            model: The model that is asked.
            images: As in ``Request``.
            is_wanted: As in ``Request``; called from any thread.
            waits_for_room: Whether to wait where the queue is full, instead of being refused.

        Raises:
            OverloadedError: The queue is full.
        """
        ticket = Ticket(self)
        with self._changed:
            while not self._queue.has_room(len(images)):
                if not self._is_running:
                    # Whoever handed these in may be slow to come for their answers.
                    self._run_pass()
                elif waits_for_room and is_wanted():
                    self._changed.wait()
                else:
                    break
            self._queue.put(Request(model, images, is_wanted, ticket.reply))
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
            answer_together(group, self._workspace, self._shadow)
        finally:
            self._changed.acquire()
            self._is_running = False
            self._changed.notify_all()
