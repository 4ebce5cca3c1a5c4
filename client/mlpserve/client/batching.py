"""Batching of small calls of threads: those that wait travel together in the next request."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy.typing as npt

from mlpserve.client.arguments import checked_flag
from mlpserve.client.arrays import as_wire_array
from mlpserve.client.core import Core, run
from mlpserve.client.errors import ClientError, InvalidRequestError, TimeoutExceededError
from mlpserve.client.predictions import Predictions
from mlpserve.client.requests import select
from mlpserve.client.shared_requests import MIN_TIMEOUT_S, Kind, checked_max_rows, joined, parted


@dataclass(eq=False)
class _Caller:
    """A thread that waits for the answer to some rows."""

    images: npt.NDArray[Any]
    deadline_s: float
    leads: bool = False  # sends the next request
    found: Predictions | ClientError | None = None
    woken: Lock = field(default_factory=Lock)  # held until there is something to do


class BatchingClient:
    """Joins calls of many threads into requests; what ``Client.batching`` returns.

    No call waits for others to come: the first is sent alone, and those that are made while a
    request is under way travel together in the next, which one of them sends for all. Calls share
    one where all but their images is the same: model, version, label, what is asked for, data type,
    size of an image and timeout. Each
    caller gets what it would have got alone: its own rows in their order, and errors that are its
    own. Where a request is refused, its calls are repeated one by one.
    """

    def __init__(self, core: Core, *, max_rows: int | None) -> None:
        self._core = core
        self._max_rows = checked_max_rows(max_rows)
        self._lock = Lock()
        # Calls that wait; a kind is there as long as one of its requests is under way.
        self._waiting: dict[Kind, deque[_Caller]] = {}

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
        allowed_s = self._core.allowed_s(timeout_s)
        rows = as_wire_array(images)
        kind = Kind(selector, is_named, rows.dtype.str, rows.shape[1], allowed_s)
        if len(rows) >= self._max_rows:
            return run(self._core.predict(rows, timeout_s=allowed_s, **kind.arguments))
        caller = _Caller(rows, time.monotonic() + allowed_s)
        self._join(caller, kind)
        if not caller.woken.acquire(timeout=allowed_s):
            self._leave(caller, kind)
            raise TimeoutExceededError(f"no answer within {allowed_s:g} s")
        if caller.leads:
            self._lead(caller, kind)
        if not isinstance(caller.found, Predictions):
            raise caller.found or ClientError("batching: the thread that sent it was stopped")
        return caller.found

    def _join(self, caller: _Caller, kind: Kind) -> None:
        with self._lock:
            caller.leads = kind not in self._waiting
            if not caller.leads:
                caller.woken.acquire()  # free until now; whoever answers, or passes on, releases it
            self._waiting.setdefault(kind, deque()).append(caller)

    def _leave(self, caller: _Caller, kind: Kind) -> None:
        """Take a caller that waited too long out of the queue, and its task from it."""
        with self._lock:
            waiting = self._waiting.get(kind, deque())
            if caller in waiting:
                waiting.remove(caller)
        if caller.leads:
            self._pass_on(kind)

    def _lead(self, caller: _Caller, kind: Kind) -> None:
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

    def _next_callers(self, kind: Kind) -> list[_Caller]:
        callers: list[_Caller] = []
        with self._lock:
            waiting, rows = self._waiting[kind], 0
            while waiting and rows + len(waiting[0].images) <= self._max_rows:
                rows += len(waiting[0].images)
                callers.append(waiting.popleft())
        return callers

    def _pass_on(self, kind: Kind) -> None:
        with self._lock:
            waiting = self._waiting[kind]
            if not waiting:
                del self._waiting[kind]
                return
            heir = waiting[0]
            heir.leads = True
        heir.woken.release()

    def _ask(self, callers: Sequence[_Caller], kind: Kind) -> None:
        """Ask for the rows of some callers in one request, and give each its answer."""
        deadline_s = min(caller.deadline_s for caller in callers)
        try:
            timeout_s = max(deadline_s - time.monotonic(), MIN_TIMEOUT_S)
            found = run(self._core.predict(joined(callers), timeout_s=timeout_s, **kind.arguments))
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
