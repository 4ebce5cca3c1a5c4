"""Core of the client: what its calls ask for, in how many requests, and what they return.

It knows neither threads nor an event loop. It is written as coroutines over a ``Transport``, of
which there are two: over that of ``AsyncClient`` they await grpc.aio; that of ``Client`` blocks, so
that they never suspend and ``run`` gets their result in one step.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import grpc
import numpy.typing as npt

from mlpserve.client.arguments import checked_flag
from mlpserve.client.arrays import as_wire_array
from mlpserve.client.errors import ClientError, ServerFaultError, TimeoutExceededError
from mlpserve.client.explanations import Explanations, explain, join_explanations, read_explanations
from mlpserve.client.health import ask_health, wait_until_ready
from mlpserve.client.predictions import Predictions, join_predictions, read_predictions
from mlpserve.client.requests import (
    MAX_IMAGES_PER_REQUEST,
    ModelSelector,
    get_model_request,
    predict_requests,
    select,
    split,
)
from mlpserve.client.results import HealthStatus, ModelInfo, VersionInfo, parse, read_model
from mlpserve.client.sending import Sender, remaining_s
from mlpserve.client.streams import StreamRequests
from mlpserve.client.transports import EXPLAIN, GET_MODEL, LIST_MODELS, PREDICT
from mlpserve.v1 import prediction_pb2

_EXPLAINS_SINCE: Final = "0.1.0"
_SHORTEST_S: Final = 0.001

AnswerT = TypeVar("AnswerT", bound=Predictions | Explanations)


class Core:
    """The calls of a client; what they take, return and raise stands at ``Client``."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
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
        """Classify images; see ``Client.predict``.

        Raises:
            InvalidRequestError: The images are not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        deadline_s = self._sender.deadline_s(timeout_s)
        selector = select(model, version, label, with_timings=timings, with_ood_scores=ood_scores)
        is_named = checked_flag(class_names, "class_names")
        rows = as_wire_array(images)
        batches = split(rows, max_images=max_images_per_request)
        requests = partial(predict_requests, batches)
        with self._sender.translated():
            parts = await self._answers(
                PREDICT,
                requests,
                selector,
                read_predictions,
                count=len(rows),
                deadline_s=deadline_s,
            )
        found = join_predictions(parts)
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
        """Say what in images spoke for a class, or against it; see ``Client.explain``.

        Raises:
            InvalidRequestError: The images are not what the model takes, or another argument is out
                of its range.
            ServerFaultError: The server is too old to explain.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        deadline_s = self._sender.deadline_s(timeout_s)
        selector = select(model, version, label, with_timings=timings)
        is_named = checked_flag(class_names, "class_names")
        rows = as_wire_array(images)
        explained = explain(method, steps, classes, len(rows))
        batches = explained.split(rows, max_images=max_images_per_request)
        requests = partial(explained.requests, batches)
        with self._sender.translated(), self._old_servers_reported():
            parts = await self._answers(
                EXPLAIN,
                requests,
                selector,
                read_explanations,
                count=len(rows),
                deadline_s=deadline_s,
            )
        found = join_explanations(parts)
        if not is_named:
            return found
        named = await self._described(found.predictions, deadline_s, is_named=True)
        return replace(found, predictions=named)

    @contextmanager
    def _old_servers_reported(self) -> Iterator[None]:
        """Say of a server that knows no Explain that it is old."""
        try:
            yield
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            raise ServerFaultError(
                f"{self._sender.target}: UNIMPLEMENTED: {error.details()}; Explain came with "
                f"mlpserve {_EXPLAINS_SINCE}, so the server seems to be older: it must be updated"
            ) from error

    async def _answers(
        self,
        method: str,
        requests: Callable[[ModelSelector], Iterator[tuple[int, bytes]]],
        selector: ModelSelector,
        read: Callable[[bytes, int], AnswerT],
        *,
        count: int,
        deadline_s: float,
    ) -> list[AnswerT]:
        """Return the answers to all requests about so many images, all by one version."""
        asked, request = next(requests(selector))
        answer = await self._sender.ask(method, request, deadline_s, is_hedged=method == PREDICT)
        first = read(answer, asked)
        if asked == count:
            return [first]
        # The version that answered first is the one that the rest is asked of.
        found = first if isinstance(first, Predictions) else first.predictions
        pinned = replace(selector, version=found.model_version, label="")
        rest = await self._sender.ask_several(method, requests(pinned), read, deadline_s)
        return [first, *rest]

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
        """Classify batch after batch over one call; see ``Client.predict_stream``.

        ``batches`` may be asynchronous. If they are not, they are asked for in the event loop, and
        must not wait.

        Yields:
            The answer to each batch, in their order.

        Raises:
            InvalidRequestError: A batch is not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        selector = select(model, version, label, with_timings=timings, with_ood_scores=ood_scores)
        is_named = checked_flag(class_names, "class_names")
        sender = self._sender
        requests = StreamRequests(batches, selector, sender.transport.turns())
        deadline_s = sender.deadline_s(timeout_s)
        with sender.translated():
            answers = sender.stream(requests, deadline_s)
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
        if not remaining_s(deadline_s) and requests.are_answers_missing:
            raise TimeoutExceededError(
                f"{sender.target}: the deadline passed before the last answer"
            )
        requests.check_end()

    async def _described(
        self, found: Predictions, deadline_s: float, *, is_named: bool, is_scored: bool = False
    ) -> Predictions:
        """Return predictions with what is asked for of their version, which never changes."""
        if is_scored and found.ood_scores is None:
            raise ClientError(
                f"{self._sender.target}: ood_scores: expected scores, but the server sent none; it "
                "is of an earlier release: update it, or leave the scores out"
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
                timeout_s=max(remaining_s(deadline_s), _SHORTEST_S),
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
        """Describe one model; see ``Client.model``.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        request = get_model_request(select(name, version, label, name="name"))
        answer = await self._sender.call(GET_MODEL, request.SerializeToString(), timeout_s)
        return read_model(parse(prediction_pb2.GetModelResponse, answer).model)

    async def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Describe all models that are served; see ``Client.models``.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        answer = await self._sender.call(LIST_MODELS, b"", timeout_s)
        described = parse(prediction_pb2.ListModelsResponse, answer)
        return [read_model(model) for model in described.models]

    async def health(
        self, service: str | None = None, *, timeout_s: float | None = None
    ) -> HealthStatus:
        """Ask for the health of the server; see ``Client.health``.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return await ask_health(self._sender, service, timeout_s=timeout_s)

    async def wait_until_ready(self, *, timeout_s: float | None = None) -> None:
        """Wait until the server answers predictions; see ``Client.wait_until_ready``.

        Raises:
            TimeoutExceededError: It did not in that time. The message says what was found last.
            ClientError: It refuses for another reason than that it is not ready.
        """
        await wait_until_ready(self._sender, timeout_s=timeout_s)
