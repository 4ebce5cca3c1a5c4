"""Inference requests of the protocol to what is asked of the request path, and answers back."""

from collections.abc import Callable
from time import monotonic_ns
from typing import Final, NamedTuple

from mlpserve.server.errors import ExpiredError, OverloadedError, ServerError
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.inference.compiled import CompiledModel, Images
from mlpserve.server.inference.decoding import Answer
from mlpserve.server.inference.traffic_split import Splitter
from mlpserve.server.models.generations import Generations
from mlpserve.server.oip import parameters
from mlpserve.server.oip.inputs import decode_images
from mlpserve.server.oip.outputs import Selected, output_tensors, selected
from mlpserve.server.oip.requests import InferRequest, InferResponse
from mlpserve.server.oip.versions import find_version
from mlpserve.server.telemetry.request_record import RequestRecord
from mlpserve.server.telemetry.statistics import Statistics

_TIMED_OUT: Final = "Request timeout expired: the request waited longer than its 'timeout' says"


class Asked(NamedTuple):
    """A request that was read, and found good.

    Attributes:
        id: What the response is to be known by.
        model: The model that is asked.
        images: (N, D), as the request path takes them.
        outputs: What is to be answered.
        priority: As ``batching.Request`` has it.
        arrived_ns: When it came in, by ``time.monotonic_ns``.
        timeout_ns: So long it may wait; 0 for as long as it takes.
    """

    id: str
    model: CompiledModel
    images: Images
    outputs: tuple[Selected, ...]
    priority: int
    arrived_ns: int
    timeout_ns: int

    def wanted(self, is_caller_there: Callable[[], bool]) -> Callable[[], bool]:
        """Return what tells whether the answer is still wanted."""
        if not self.timeout_ns:
            return is_caller_there
        return lambda: not self._is_late() and is_caller_there()

    def reason(self, error: Exception) -> Exception:
        """Return what a caller is told where the request path raised an error."""
        if isinstance(error, ExpiredError) and self.timeout_ns and self._is_late():
            return OverloadedError(_TIMED_OUT)
        return error

    def response(self, answer: Answer) -> InferResponse:
        """Return the response that carries the model's answer."""
        metadata = self.model.metadata
        return InferResponse(
            metadata.name,
            metadata.version,
            self.id,
            output_tensors(self.outputs, self.model, answer),
        )

    def _is_late(self) -> bool:
        return monotonic_ns() - self.arrived_ns > self.timeout_ns


class Inference:
    """Reads inference requests. Runs no network. Safe to use from many threads.

    Args:
        generations: The models. Each request is answered from those that are served when it is
            read.
        statistics: Where requests that are refused are counted.
        max_batch_images: The most images that one request may carry.
        splitter: What divides requests between labels; None where nothing does.
    """

    def __init__(
        self,
        generations: Generations,
        statistics: Statistics,
        *,
        max_batch_images: int,
        splitter: Splitter | None = None,
    ) -> None:
        self._generations = generations
        self._statistics = statistics
        self._max_batch_images = max_batch_images
        self._splitter = splitter

    def ask(self, request: InferRequest, record: RequestRecord) -> Asked:
        """Return what a request asks.

        Args:
            request: The request.
            record: Says when it came in, and what came with it, of which a header may say who asks.

        Raises:
            RequestError: Something in it is wrong.
            UnsupportedError: It asks for what this server does not have.
            NotServedError: It asks for a model that is not served.
        """
        registry = self._generations.current
        model = find_version(registry, request.model_name, request.model_version)
        if self._splitter is not None and not request.model_version:
            key = self._splitter.key(record.metadata)
            model = self._splitter.choose(registry, model.metadata.name, key)
        try:
            return self._asked(request, model, record.arrived_ns)
        except ServerError:
            self._statistics.failed(model, requests=1, ns=monotonic_ns() - record.arrived_ns)
            raise

    def values_per_image(self, name: str, version: str) -> int:
        """Return how many values an image of a model has; errors as for ``find_version``."""
        return find_version(
            self._generations.current, name, version
        ).metadata.input.values_per_image

    def _asked(self, request: InferRequest, model: CompiledModel, arrived_ns: int) -> Asked:
        parameters.refuse_sequences(request.parameters)
        return Asked(
            request.id,
            model,
            decode_images(request.input, model, max_batch_images=self._max_batch_images),
            selected(request.outputs, model.metadata.name),
            parameters.priority(request.parameters),
            arrived_ns,
            parameters.timeout_ns(request.parameters),
        )


def hand_in(
    batcher: Batcher,
    asked: Asked,
    record: RequestRecord,
    is_caller_there: Callable[[], bool],
    *,
    waits_for_room: bool,
) -> Callable[[], InferResponse]:
    """Hand a request in, and return what waits for its response.

    Raises:
        OverloadedError: The queue is full, and ``waits_for_room`` is false.
    """
    ticket = batcher.submit(
        asked.model,
        asked.images,
        is_wanted=asked.wanted(is_caller_there),
        waits_for_room=waits_for_room,
        priority=asked.priority,
        record=record,
    )

    def response() -> InferResponse:
        try:
            answer = ticket.result()
        except ExpiredError as error:
            raise asked.reason(error) from error
        return asked.response(answer)

    return response
