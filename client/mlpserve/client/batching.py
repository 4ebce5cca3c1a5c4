"""Batching of small calls of threads: those that wait travel together in the next request."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from mlpserve.client.arguments import checked_flag
from mlpserve.client.arrays import as_wire_array
from mlpserve.client.blocking_transport import run
from mlpserve.client.core import Core
from mlpserve.client.errors import ClientError, InvalidRequestError, TimeoutExceededError
from mlpserve.client.explanations import Explanations, explain
from mlpserve.client.predictions import Predictions
from mlpserve.client.requests import select
from mlpserve.client.sending import Sender
from mlpserve.client.shared_requests import (
    MIN_TIMEOUT_S,
    AnswerT,
    Kind,
    ask_to_explain,
    ask_to_predict,
    checked_max_rows,
    max_explained,
    parted,
)


@dataclass(eq=False)
class _Caller(Generic[AnswerT]):
    """A thread that waits for the answer to some rows."""

    images: npt.NDArray[Any]
    classes: npt.NDArray[np.int32] | None
    deadline_s: float
    leads: bool = False  # sends the next request
    found: AnswerT | ClientError | None = None
    woken: Lock = field(default_factory=Lock)  # held until there is something to do


class BatchingClient:
    """Joins calls of many threads into requests; what ``Client.batching`` returns.

    No call waits for others to come: the first is sent alone, and those that are made while a
    request is under way travel together in the next, which one of them sends for all. Calls share
    one where all but their images is the same: model, version, label, what is asked for, data type,
    size of an image and timeout. Each caller gets what it would have got alone: its own rows in
    their order, and errors that are its own. Where a request is refused, its calls are repeated one
    by one.
    """

    def __init__(self, core: Core, sender: Sender, *, max_rows: int | None) -> None:
        self._core = core
        self._sender = sender
        self._max_rows = checked_max_rows(max_rows)
        self._lock = Lock()
        # Calls that wait; a kind is there as long as one of its requests is under way.
        self._waiting: dict[Kind[Any], deque[_Caller[Any]]] = {}

    @property
    def waiting(self) -> int:
        """How many calls wait to be sent."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def predict(
        self,
        images: npt.ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        class_names: bool = False,
        timings: bool = False,
        ood_scores: bool = False,
    ) -> Predictions:
        """Classify images, together with those of other threads; see ``Client.predict``.

        Raises:
            InvalidRequestError: The images are not what the model takes.
            ClientError: The call failed.
        """
        selector = select(model, version, label, with_timings=timings, with_ood_scores=ood_scores)
        is_named = checked_flag(class_names, "class_names")
        allowed_s = self._sender.allowed_s(timeout_s)
        rows = as_wire_array(images)
        kind = Kind(
            ask_to_predict,
            selector,
            is_named,
            rows.dtype.str,
            rows.shape[1],
            self._max_rows,
            allowed_s,
        )
        return self._answer(_Caller(rows, None, time.monotonic() + allowed_s), kind, allowed_s)

    def explain(
        self,
        images: npt.ArrayLike,
        *,
        classes: npt.ArrayLike | None = None,
        method: str | None = None,
        steps: int | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        class_names: bool = False,
        timings: bool = False,
    ) -> Explanations:
        """Explain images, together with those of other threads; see ``Client.explain``.

        Calls share a request where method and steps are the same as well; each keeps its classes.

        Raises:
            InvalidRequestError: The images are not what the model takes, or another argument is out
                of its range.
            ClientError: The call failed.
        """
        selector = select(model, version, label, with_timings=timings)
        is_named = checked_flag(class_names, "class_names")
        allowed_s = self._sender.allowed_s(timeout_s)
        rows = as_wire_array(images)
        explained = explain(method, steps, classes, len(rows))
        kind = Kind(
            ask_to_explain,
            selector,
            is_named,
            rows.dtype.str,
            rows.shape[1],
            max_explained(self._max_rows, explained),
            allowed_s,
            method,
            steps,
        )
        caller = _Caller[Explanations](rows, explained.classes, time.monotonic() + allowed_s)
        return self._answer(caller, kind, allowed_s)

    def _answer(self, caller: _Caller[AnswerT], kind: Kind[AnswerT], allowed_s: float) -> AnswerT:
        """Wait for the answer to a caller's rows, and send them where it is its turn."""
        if len(caller.images) >= kind.max_rows:
            return run(kind.ask(self._core, kind, [caller], allowed_s))
        self._join(caller, kind)
        if not caller.woken.acquire(timeout=allowed_s):
            self._leave(caller, kind)
            raise TimeoutExceededError(f"no answer within {allowed_s:g} s")
        if caller.leads:
            self._lead(caller, kind)
        if caller.found is None or isinstance(caller.found, ClientError):
            raise caller.found or ClientError("batching: the thread that sent it was stopped")
        return caller.found

    def _join(self, caller: _Caller[AnswerT], kind: Kind[AnswerT]) -> None:
        with self._lock:
            caller.leads = kind not in self._waiting
            if not caller.leads:
                caller.woken.acquire()  # free until now; whoever answers, or passes on, releases it
            self._waiting.setdefault(kind, deque()).append(caller)

    def _leave(self, caller: _Caller[AnswerT], kind: Kind[AnswerT]) -> None:
        """Take a caller that waited too long out of the queue, and its task from it."""
        with self._lock:
            waiting = self._waiting.get(kind, deque())
            if caller in waiting:
                waiting.remove(caller)
        if caller.leads:
            self._pass_on(kind)

    def _lead(self, caller: _Caller[AnswerT], kind: Kind[AnswerT]) -> None:
        """Send requests until a caller has its own answer, then have the next one go on."""
        try:
            while caller.found is None:
                callers = self._next_callers(kind)
                try:
                    self._ask(callers, kind)
                finally:
                    for other in callers:
                        if other is not caller:
                            other.woken.release()
        finally:
            self._pass_on(kind)

    def _next_callers(self, kind: Kind[AnswerT]) -> list[_Caller[AnswerT]]:
        callers: list[_Caller[AnswerT]] = []
        with self._lock:
            waiting, rows = self._waiting[kind], 0
            while waiting and rows + len(waiting[0].images) <= kind.max_rows:
                rows += len(waiting[0].images)
                callers.append(waiting.popleft())
        return callers

    def _pass_on(self, kind: Kind[Any]) -> None:
        with self._lock:
            waiting = self._waiting[kind]
            if not waiting:
                del self._waiting[kind]
                return
            heir = waiting[0]
            heir.leads = True
        heir.woken.release()

    def _ask(self, callers: Sequence[_Caller[AnswerT]], kind: Kind[AnswerT]) -> None:
        """Ask for the rows of some callers in one request, and give each its answer."""
        deadline_s = min(caller.deadline_s for caller in callers)
        try:
            timeout_s = max(deadline_s - time.monotonic(), MIN_TIMEOUT_S)
            found = run(kind.ask(self._core, kind, callers, timeout_s))
        except InvalidRequestError as error:
            if len(callers) == 1:
                callers[0].found = error
            else:  # so that only those whose images are wrong hear of it
                for caller in callers:
                    self._ask([caller], kind)
        except ClientError as error:
            for caller in callers:
                caller.found = error.copy()
        else:
            for caller, answer in parted(found, callers):
                caller.found = answer
