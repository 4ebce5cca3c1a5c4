"""Batching of small calls of coroutines: they travel in one request, and part again."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Self

import numpy as np
import numpy.typing as npt

from mlpserve.client.arguments import checked_flag, checked_timeout_s
from mlpserve.client.arrays import as_wire_array
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
    rows_of,
)

DEFAULT_MAX_DELAY_S: Final = 0.001


@dataclass(eq=False)
class _Caller(Generic[AnswerT]):
    """Whoever waits for the answer to some rows."""

    images: npt.NDArray[Any]
    classes: npt.NDArray[np.int32] | None
    answer: asyncio.Future[AnswerT]
    deadline_s: float  # by the loop's clock


@dataclass(eq=False)
class _Batch(Generic[AnswerT]):
    """The callers that are to share a request."""

    callers: list[_Caller[AnswerT]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class AsyncBatchingClient:
    """Joins calls of many coroutines into requests; what ``AsyncClient.batching`` returns.

    A request is sent when it has ``max_rows``, or ``max_delay_s`` after the first of its calls.
    Calls share one where model, version, label, what is asked for, data type and the size of an
    image are the same.
    Each caller gets what it would have got alone: its own rows in their order, and errors that are
    its own. Where a request is refused, its calls are repeated one by one. Those who are cancelled
    leave; a request that all have left is cancelled.

    The span of OpenTelemetry that a request belongs to is that of the call that completed it.
    """

    def __init__(
        self, core: Core, sender: Sender, *, max_rows: int | None, max_delay_s: float | None
    ) -> None:
        self._core = core
        self._sender = sender
        self._max_rows = checked_max_rows(max_rows)
        if max_delay_s is None:
            max_delay_s = DEFAULT_MAX_DELAY_S
        self._max_delay_s = checked_timeout_s(max_delay_s, "max_delay_s", may_be_zero=True)
        self._open: dict[Kind[Any], _Batch[Any]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        """Return the object itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Send what waits, and wait for all answers. The client stays open."""
        self._is_closed = True
        for kind in list(self._open):
            self._send(kind)
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def predict(
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
        """Classify images, together with those of other callers; see ``Client.predict``.

        Raises:
            InvalidRequestError: The images are not what the model takes.
            ClientError: The call failed, or this object is closed.
        """
        selector = select(model, version, label, with_timings=timings, with_ood_scores=ood_scores)
        is_named = checked_flag(class_names, "class_names")
        allowed_s = self._sender.allowed_s(timeout_s)
        rows = as_wire_array(images)
        kind = Kind(
            ask_to_predict, selector, is_named, rows.dtype.str, rows.shape[1], self._max_rows
        )
        return await self._answer(rows, None, kind, allowed_s)

    async def explain(
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
        """Explain images, together with those of other callers; see ``Client.explain``.

        Calls share a request where method and steps are the same as well; each keeps its classes.

        Raises:
            InvalidRequestError: The images are not what the model takes, or another argument is out
                of its range.
            ClientError: The call failed, or this object is closed.
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
            method=method,
            steps=steps,
        )
        return await self._answer(rows, explained.classes, kind, allowed_s)

    async def _answer(
        self,
        rows: npt.NDArray[Any],
        classes: npt.NDArray[np.int32] | None,
        kind: Kind[AnswerT],
        allowed_s: float,
    ) -> AnswerT:
        """Wait for the answer to some rows, which others may share the request with."""
        if self._is_closed:
            raise ClientError("batching: closed; make another with AsyncClient.batching")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[AnswerT] = loop.create_future()
        caller = _Caller(rows, classes, answer, loop.time() + allowed_s)
        if len(rows) >= kind.max_rows:
            return await kind.ask(self._core, kind, [caller], allowed_s)
        try:
            async with asyncio.timeout(allowed_s):
                self._join(caller, kind)
                return await answer
        except TimeoutExceededError:
            raise
        except TimeoutError as error:
            raise TimeoutExceededError(f"no answer within {allowed_s:g} s") from error

    def _join(self, caller: _Caller[AnswerT], kind: Kind[AnswerT]) -> None:
        """Put a caller into the open batch of its kind, and send what is full."""
        batch = self._open.get(kind)
        if batch is not None and rows_of(batch.callers) + len(caller.images) > kind.max_rows:
            self._send(kind)
            batch = None
        if batch is None:
            batch = self._open[kind] = _Batch()
            loop = asyncio.get_running_loop()
            batch.timer = loop.call_later(self._max_delay_s, self._send, kind)
        batch.callers.append(caller)
        if rows_of(batch.callers) == kind.max_rows:
            self._send(kind)

    def _send(self, kind: Kind[Any]) -> None:
        batch = self._open.pop(kind)
        if batch.timer is not None:
            batch.timer.cancel()
        callers = [caller for caller in batch.callers if not caller.answer.done()]
        if callers:
            self._start(callers, kind)

    def _start(self, callers: list[_Caller[AnswerT]], kind: Kind[AnswerT]) -> None:
        task = asyncio.create_task(self._ask(callers, kind))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

        def left(_: object) -> None:
            if all(caller.answer.done() for caller in callers):
                task.cancel()

        for caller in callers:
            caller.answer.add_done_callback(left)

    async def _ask(self, callers: list[_Caller[AnswerT]], kind: Kind[AnswerT]) -> None:
        """Ask for the rows of some callers in one request, and give each its answer."""
        now_s = asyncio.get_running_loop().time()
        try:
            allowed_s = max(MIN_TIMEOUT_S, *(caller.deadline_s - now_s for caller in callers))
            found = await kind.ask(self._core, kind, callers, allowed_s)
        except InvalidRequestError as error:
            if len(callers) == 1:
                _fail(callers, error)
            else:  # so that only those whose images are wrong hear of it
                for caller in callers:
                    if not caller.answer.done():
                        self._start([caller], kind)
        except asyncio.CancelledError:  # the loop ends, or all have left
            for caller in callers:
                caller.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is the callers'
            _fail(callers, error)
        else:
            _answer(callers, found)


def _answer(callers: list[_Caller[AnswerT]], found: AnswerT) -> None:
    for caller, answer in parted(found, callers):
        if not caller.answer.done():
            caller.answer.set_result(answer)


def _fail(callers: list[_Caller[AnswerT]], error: Exception) -> None:
    for caller in callers:
        if not caller.answer.done():
            own = error.copy() if isinstance(error, ClientError) else error
            caller.answer.set_exception(own)
