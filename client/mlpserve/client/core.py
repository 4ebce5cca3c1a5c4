"""Core of the client: what its calls send, how they are split, ordered and repeated, and fail.

It knows neither threads nor an event loop. It is written as coroutines over a ``Transport``, of
which there are two: that of ``Client`` blocks, so that its coroutines never suspend and ``run``
gets their result in one step; that of ``AsyncClient`` awaits grpc.aio.
"""

import math
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

import grpc
import numpy.typing as npt

from mlpserve.client.arguments import authorization, checked_flag, checked_text, checked_timeout_s
from mlpserve.client.arrays import as_wire_array
from mlpserve.client.channel import trace_metadata
from mlpserve.client.errors import (
    ClientError,
    NotFoundError,
    ServerFaultError,
    TimeoutExceededError,
    UnavailableError,
    client_error,
    pushback_s,
)
from mlpserve.client.explanations import Explanations, join_explanations, read_explanations
from mlpserve.client.hedging import MAX_HEDGED_BYTES, Hedging
from mlpserve.client.predictions import Predictions, join_predictions, read_predictions
from mlpserve.client.proxies import described
from mlpserve.client.requests import (
    MAX_IMAGES_PER_REQUEST,
    ModelSelector,
    encode_request,
    explain,
    get_model_request,
    select,
    split,
)
from mlpserve.client.results import (
    HealthStatus,
    ModelInfo,
    VersionInfo,
    parse,
    read_health,
    read_model,
)
from mlpserve.client.streams import StreamRequests
from mlpserve.client.transports import Metadata, Pending, Transport
from mlpserve.v1 import prediction_pb2

DEFAULT_TIMEOUT_S: Final = 30.0
_EXPLAINS_SINCE: Final = "0.1.0"
# So many requests of one array are under way at once: one is computed while others travel. Of small
# ones, of which Python and not the network is the limit, twice as many keep the server busy.
_MAX_IN_FLIGHT: Final = 4
_MAX_SMALL_IN_FLIGHT: Final = 8
_SMALL_BYTES: Final = 128 * 1024
_SERVICE: Final = "/mlpserve.v1.PredictionService/"
PREDICT: Final = f"{_SERVICE}Predict"
PREDICT_STREAM: Final = f"{_SERVICE}PredictStream"
EXPLAIN: Final = f"{_SERVICE}Explain"
GET_MODEL: Final = f"{_SERVICE}GetModel"
LIST_MODELS: Final = f"{_SERVICE}ListModels"
HEALTH: Final = "/grpc.health.v1.Health/Check"
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_HEALTH_TIMEOUT_S: Final = 2.0
_SHORTEST_S: Final = 0.001

# As gRPC does it for other calls, see channel.py. It would try a stream again only before the first
# answer, and 1.85 loses a message of one now and then.
_RETRIED_STATUSES: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# With INTERNAL: what grpc.aio says where a request is sent in the moment in which a stream breaks.
_SENT_TOO_LATE: Final = "Internal error from Core"
_STREAM_PAUSES_S: Final = (0.1, 0.3, 0.9, 1.0)  # until there is an answer

ResultT = TypeVar("ResultT")


def run(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Return the result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: ResultT = done.value
        return result
    raise RuntimeError("a coroutine of the blocking client was suspended")


class Core:
    """The calls of a client, over either transport; their arguments are those of ``Client``.

    Args:
        target: The server, as messages name it.
        transport: The way there.
        timeout_s: Seconds that a call may take.
        token: The bearer token that is sent along.
        hedge_after_s: After so long, a small call is made once more; None for never.

    Raises:
        InvalidRequestError: An argument is out of its range.
    """

    def __init__(
        self,
        target: str,
        transport: Transport,
        *,
        timeout_s: float | None,
        token: str | None,
        hedge_after_s: float | None,
    ) -> None:
        self._target = described(target)
        self._transport = transport
        self._timeout_s = DEFAULT_TIMEOUT_S if timeout_s is None else checked_timeout_s(timeout_s)
        self._authorization = authorization(token)
        self._hedging: Hedging | None = None
        if hedge_after_s is not None:
            after_s = checked_timeout_s(hedge_after_s, "hedge_after_s")
            self._hedging = Hedging(transport, after_s)
        self._versions: dict[tuple[str, int], VersionInfo] = {}

    async def predict(
        self,
        images: npt.ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        max_images_per_request: int | None = MAX_IMAGES_PER_REQUEST,
        class_names: bool = False,
        timings: bool = False,
        ood_scores: bool = False,
    ) -> Predictions:
        """Classify images."""
        deadline_s = self._deadline_s(timeout_s)
        selector = select(model, version, label, with_timings=timings, with_ood_scores=ood_scores)
        is_named = checked_flag(class_names, "class_names")
        rows = as_wire_array(images)
        batches = split(rows, max_images=max_images_per_request)
        batch = next(batches)
        request = encode_request(batch, selector)
        # Not started and then waited for: that takes a hand-off between threads.
        ask = self._transport.ask
        if self._hedging is not None and len(request) <= MAX_HEDGED_BYTES:
            ask = self._hedging.ask
        with self._translated():
            answer = await ask(PREDICT, request, _remaining_s(deadline_s), self._metadata())
            found = read_predictions(answer, len(batch))
            if len(batch) < len(rows):
                # The version that answered first is the one that the rest is asked of.
                pinned = replace(selector, version=found.model_version, label="")
                requests = ((len(batch), encode_request(batch, pinned)) for batch in batches)
                rest = await self._pipelined(PREDICT, requests, read_predictions, deadline_s)
                found = join_predictions([found, *rest])
        if not (is_named or ood_scores):
            return found
        return await self._described(found, deadline_s, is_named=is_named, is_scored=ood_scores)

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
        max_images_per_request: int | None = None,
        class_names: bool = False,
        timings: bool = False,
    ) -> Explanations:
        """Explain images."""
        deadline_s = self._deadline_s(timeout_s)
        selector = select(model, version, label, with_timings=timings)
        is_named = checked_flag(class_names, "class_names")
        rows = as_wire_array(images)
        explained = explain(method, steps, classes, len(rows))
        batches = explained.split(rows, max_images=max_images_per_request)
        with self._translated():
            count, request = next(explained.requests(batches, selector))
            answer = await self._ask_to_explain(request, deadline_s)
            found = read_explanations(answer, count)
            if count < len(rows):
                # As for predictions.
                pinned = replace(selector, version=found.predictions.model_version, label="")
                requests = explained.requests(batches, pinned)
                rest = await self._pipelined(EXPLAIN, requests, read_explanations, deadline_s)
                found = join_explanations([found, *rest])
        if not is_named:
            return found
        named = await self._described(found.predictions, deadline_s, is_named=True)
        return replace(found, predictions=named)

    async def _ask_to_explain(self, request: bytes, deadline_s: float) -> bytes:
        ask = self._transport.ask
        try:
            return await ask(EXPLAIN, request, _remaining_s(deadline_s), self._metadata())
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            raise ServerFaultError(
                f"{self._target}: UNIMPLEMENTED: {error.details()}; Explain came with mlpserve "
                f"{_EXPLAINS_SINCE}, so the server seems to be older: it must be updated"
            ) from error

    async def _pipelined(
        self,
        method: str,
        requests: Iterable[tuple[int, bytes]],
        read: Callable[[bytes, int], ResultT],
        deadline_s: float,
    ) -> list[ResultT]:
        """Send requests about so many images, several at once, and return their answers in order.

        The next request is asked for when there is room for it under way.
        """
        found: list[ResultT] = []
        under_way: deque[tuple[int, Pending]] = deque()

        async def take_next() -> None:
            count, call = under_way.popleft()
            found.append(read(await call.answer(), count))

        try:
            for count, request in requests:
                call = self._transport.start(
                    method, request, _remaining_s(deadline_s), self._metadata()
                )
                under_way.append((count, call))
                is_small = len(request) <= _SMALL_BYTES
                if len(under_way) >= (_MAX_SMALL_IN_FLIGHT if is_small else _MAX_IN_FLIGHT):
                    await take_next()
            while under_way:
                await take_next()
        finally:
            for _, call in under_way:
                call.cancel()
        return found

    async def predict_stream(
        self,
        batches: Iterable[npt.ArrayLike] | AsyncIterable[npt.ArrayLike],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        class_names: bool = False,
        timings: bool = False,
        ood_scores: bool = False,
    ) -> AsyncGenerator[Predictions, None]:
        """Classify batch after batch over one call."""
        selector = select(model, version, label, with_timings=timings, with_ood_scores=ood_scores)
        is_named = checked_flag(class_names, "class_names")
        requests = StreamRequests(batches, selector, self._transport.turns())
        deadline_s = self._deadline_s(timeout_s)
        with self._translated():
            answers = self._answers(requests, deadline_s)
            try:
                async for answer in answers:
                    found = read_predictions(answer, requests.next_count())
                    if is_named or ood_scores:
                        found = await self._described(
                            found, deadline_s, is_named=is_named, is_scored=ood_scores
                        )
                    yield found
            finally:
                await answers.aclose()
                await requests.close()
        # A server whose own clock sees the deadline first may end the stream as if it were done.
        if time.monotonic() >= deadline_s and requests.are_answers_missing:
            raise TimeoutExceededError(
                f"{self._target}: the deadline passed before the last answer"
            )
        requests.check_end()

    async def _answers(
        self, requests: StreamRequests, deadline_s: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the answers of a stream; where it breaks, go on after the last of them."""
        pauses = iter(_STREAM_PAUSES_S)
        while True:
            answers = self._transport.stream(
                PREDICT_STREAM, requests, _remaining_s(deadline_s), self._metadata()
            )
            try:
                async for answer in answers:
                    pauses = iter(_STREAM_PAUSES_S)
                    yield answer
            except grpc.RpcError as error:
                pause_s = max(next(pauses, math.inf), pushback_s(error) or 0)
                if self._transport.is_closed or not _is_broken(error):
                    raise
                if pause_s >= _remaining_s(deadline_s):
                    raise
            else:
                return
            finally:
                await answers.aclose()
            await self._transport.sleep(pause_s)
            requests.start_again()

    async def _described(
        self, found: Predictions, deadline_s: float, *, is_named: bool, is_scored: bool = False
    ) -> Predictions:
        """Return predictions with what is asked for of their version, which never changes."""
        if is_scored and found.ood_scores is None:
            raise ClientError(
                f"{self._target}: ood_scores: expected scores, but the server sent none; it is of "
                "an earlier release: update it, or leave the scores out"
            )
        version = await self._version(found, deadline_s)
        return replace(
            found,
            class_names=version.class_labels if is_named else None,
            ood_threshold=version.ood_threshold if is_scored else None,
        )

    async def _version(self, found: Predictions, deadline_s: float) -> VersionInfo:
        """Return the description of the version that answered; it is asked for once."""
        key = found.model_name, found.model_version
        if key not in self._versions:
            described = await self.model(
                found.model_name,
                version=found.model_version,
                timeout_s=max(_remaining_s(deadline_s), _SHORTEST_S),
            )
            self._versions[key] = described.versions[0]
        return self._versions[key]

    async def model(
        self,
        name: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> ModelInfo:
        """Describe one model."""
        request = get_model_request(select(name, version, label, name="name"))
        answer = await self._ask(GET_MODEL, request.SerializeToString(), timeout_s)
        return read_model(parse(prediction_pb2.GetModelResponse, answer).model)

    async def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Describe all models."""
        answer = await self._ask(LIST_MODELS, b"", timeout_s)
        described = parse(prediction_pb2.ListModelsResponse, answer)
        return [read_model(model) for model in described.models]

    async def health(
        self, service: str | None = None, *, timeout_s: float | None = None
    ) -> HealthStatus:
        """Ask for the health of the server."""
        # Field 1 of a HealthCheckRequest is a text, as the first of a ListModels's model.
        named = ModelSelector(checked_text(service, "service")).encoded
        return read_health(await self._ask(HEALTH, named, timeout_s))

    async def wait_until_ready(self, *, timeout_s: float | None = None) -> None:
        """Wait until the server serves."""
        deadline_s = self._deadline_s(timeout_s)
        pause_s = _FIRST_PAUSE_S
        while True:
            allowed_s = min(_HEALTH_TIMEOUT_S, _remaining_s(deadline_s))
            try:
                status = await self.health(timeout_s=max(allowed_s, _FIRST_PAUSE_S))
            except (UnavailableError, TimeoutExceededError, NotFoundError) as error:
                found = str(error)
            else:
                if status is HealthStatus.SERVING:
                    return
                found = f"{self._target}: the server says {status}"
            if time.monotonic() + pause_s >= deadline_s:
                raise TimeoutExceededError(f"{found}; the server was not ready in time")
            await self._transport.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _ask(self, method: str, request: bytes, timeout_s: float | None) -> bytes:
        allowed_s = self.allowed_s(timeout_s)
        with self._translated():
            return await self._transport.ask(method, request, allowed_s, self._metadata())

    def _metadata(self) -> Metadata:
        """Return what is sent along with a call that is made now."""
        return self._authorization + trace_metadata()

    def allowed_s(self, timeout_s: float | None) -> float:
        """Return the seconds that a call may take: its own, or else the client's.

        Raises:
            InvalidRequestError: ``timeout_s`` is no number above 0.
        """
        return self._timeout_s if timeout_s is None else checked_timeout_s(timeout_s)

    def _deadline_s(self, timeout_s: float | None) -> float:
        return time.monotonic() + self.allowed_s(timeout_s)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise the client's own errors in place of gRPC's."""
        if self._transport.is_closed:
            raise ClientError(f"{self._target}: the client is closed")
        if self._transport.process not in (None, os.getpid()):
            raise ClientError(
                f"{self._target}: expected a call from the process that made the client, got one "
                "from a process that was forked from it; make a client in each process"
            )
        try:
            yield
        except ClientError:
            raise
        # Of several kinds, where the channel was closed.
        except Exception as error:
            if self._transport.is_closed:
                raise ClientError(f"{self._target}: the client was closed meanwhile") from error
            if isinstance(error, grpc.RpcError):
                raise client_error(error, self._target) from error
            raise


def _is_broken(error: grpc.RpcError) -> bool:
    """Return whether a stream ended so that another may go on with it."""
    return error.code() in _RETRIED_STATUSES or error.details() == _SENT_TOO_LATE


def _remaining_s(deadline_s: float) -> float:
    """Return the seconds until a deadline; at once past it, but never what gRPC rejects."""
    return max(deadline_s - time.monotonic(), 0.0)
