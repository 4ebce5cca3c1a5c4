"""Inference requests of the protocol, checked and parsed, whether they came by gRPC or HTTP."""

from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final, TypeVar

import numpy as np

from mlpserve.model.attribution import DEFAULT_STEPS
from mlpserve.model.compiled import MOST_PROBABLE, Answer, CompiledModel
from mlpserve.server.errors import RequestError, ServerError, UnsupportedError
from mlpserve.server.inference.explanation import checked_explanation, to_be_explained
from mlpserve.server.inference.ood_scores import ood_scoring
from mlpserve.server.inference.registry import Router, SplitKey
from mlpserve.server.inference.request import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    NORMAL_PRIORITY,
    Explanation,
    ParsedRequest,
)
from mlpserve.server.oip.descriptions import input_datatype
from mlpserve.server.oip.messages import decode_request, encode_response, encode_stream_response
from mlpserve.server.oip.repository import find_version
from mlpserve.server.oip.tensors import (
    ATTRIBUTIONS,
    OOD_SCORES,
    decode_images,
    output_tensors,
    selected,
)
from mlpserve.server.oip.values import (
    BYTES_PER_VALUE,
    CLASS,
    METHOD,
    PRIORITY,
    SEQUENCES,
    STEPS,
    TIMEOUT,
    InferRequest,
    InferResponse,
    Parameters,
    shortened,
    whole_number,
)
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.request_record import RequestRecord

_NS_PER_US: Final = 1000
_INTEGRATED: Final = "integrated_gradients"
_METHODS: Final = (_INTEGRATED, "gradient_times_input")
_ResponseT = TypeVar("_ResponseT")


class Inference:
    """Parses inference requests. Runs no network. Safe to use from many threads.

    Args:
        router: Finds who answers. Each request is answered from the models that are served when it
            is parsed.
        counters: Where requests that are refused are counted.
        max_batch_images: The most images that one request may carry.
        max_message_bytes: The largest message; it bounds the values that are not sent raw, too.
    """

    def __init__(
        self,
        router: Router,
        counters: Counters,
        *,
        max_batch_images: int,
        max_message_bytes: int,
    ) -> None:
        self.router: Final = router
        self._counters = counters
        self.max_values: Final = max_message_bytes // BYTES_PER_VALUE
        self._max_batch_images = max_batch_images

    def parse(
        self, data: bytes, record: RequestRecord, key: SplitKey = None
    ) -> ParsedRequest[bytes]:
        """Return the request that a ModelInferRequest is; errors as of ``request``."""
        return self.request(decode_request(data, self.max_values), record, key, encode_response)

    def parse_streamed(
        self, data: bytes, record: RequestRecord, key: SplitKey = None
    ) -> ParsedRequest[bytes]:
        """Return the same for one request of a stream."""
        plain = decode_request(data, self.max_values)
        return self.request(plain, record, key, encode_stream_response)

    def request(
        self,
        plain: InferRequest,
        record: RequestRecord,
        key: SplitKey,
        encode: Callable[[InferResponse], _ResponseT],
    ) -> ParsedRequest[_ResponseT]:
        """Return a request that was found good.

        Args:
            plain: The request as it was sent.
            record: When it came, and from whom.
            key: Who asks; see ``Router``.
            encode: Writes the response.

        Raises:
            RequestError: Something in it is wrong.
            UnsupportedError: It asks for what this server does not have.
            NotServedError: It asks for a model that is not served.
        """
        registry = self.router.registry
        model = find_version(registry, plain.model_name, plain.model_version)
        if not plain.model_version:
            model = self.router.split(registry, model, key)
        try:
            return self._parsed(plain, model, record, encode)
        except ServerError:
            ns = monotonic_ns() - record.arrived_ns
            self._counters.add_failed(model, requests=1, ns=ns)
            raise

    def image_form(self, name: str, version: str) -> tuple[str, int]:
        """Return the datatype that a model is best sent, and how many values an image of it has.

        Errors as for ``find_version``.
        """
        model = find_version(self.router.registry, name, version)
        return input_datatype(model), model.metadata.input.values_per_image

    def _parsed(
        self,
        plain: InferRequest,
        model: CompiledModel,
        record: RequestRecord,
        encode: Callable[[InferResponse], _ResponseT],
    ) -> ParsedRequest[_ResponseT]:
        _refuse_sequences(plain.parameters)
        images = decode_images(plain.input, model, max_batch_images=self._max_batch_images)
        metadata = model.metadata
        outputs = selected(plain.outputs, metadata.name)
        are_scored = any(output.name == OOD_SCORES for output in plain.outputs)
        scores = ood_scoring(model, images, f"output '{OOD_SCORES}'") if are_scored else None

        def encode_answer(answer: Answer) -> _ResponseT:
            tensors = output_tensors(outputs, model, answer, scores)
            return encode(InferResponse(metadata.name, metadata.version, plain.id, tensors))

        request = ParsedRequest(
            model,
            images,
            len(images),
            encode_answer,
            record,
            priority=_priority(plain.parameters),
            timeout_ns=_timeout_ns(plain.parameters),
        )
        for output in plain.outputs:
            if output.name == ATTRIBUTIONS:
                # What is answered is to have no more values than what may be asked.
                max_answered = self.max_values // metadata.input.values_per_image
                max_rows = min(self._max_batch_images, max_answered)
                return to_be_explained(request, _explanation(output.parameters, request, max_rows))
        return request


def _priority(parameters: Parameters) -> int:
    """Return a request's priority; one that is not among ours is the normal one."""
    level = whole_number(parameters, PRIORITY)
    return level if HIGHEST_PRIORITY <= level <= LOWEST_PRIORITY else NORMAL_PRIORITY


def _timeout_ns(parameters: Parameters) -> int:
    """Return how long a request may wait for its turn; 0 for as long as it takes."""
    timeout_us = whole_number(parameters, TIMEOUT)
    if timeout_us < 0:
        raise RequestError(f"{TIMEOUT}: expected microseconds, 0 for no limit, got {timeout_us}")
    return timeout_us * _NS_PER_US


def _explanation(parameters: Parameters, request: ParsedRequest[Any], max_rows: int) -> Explanation:
    """Return what the parameters of the output of attributions ask for."""
    method = parameters.get(METHOD, _INTEGRATED)
    if method not in _METHODS:
        raise RequestError(
            f"{METHOD}: expected {' or '.join(_METHODS)}, got {shortened(str(method))}"
        )
    steps: int | None = None
    if method == _INTEGRATED:
        steps = whole_number(parameters, STEPS) if STEPS in parameters else DEFAULT_STEPS
    elif STEPS in parameters:
        raise RequestError(f"{STEPS}: expected none with {method}, got one")
    index = whole_number(parameters, CLASS) if CLASS in parameters else MOST_PROBABLE
    last = len(request.model.metadata.class_labels) - 1
    if not MOST_PROBABLE <= index <= last:
        raise RequestError(
            f"{CLASS}: expected from 0 to {last}, or {MOST_PROBABLE} for the most probable, "
            f"got {index}"
        )
    count = len(request.images)
    classes = np.full(count, index, np.int32)
    return checked_explanation(request.model, count, classes, steps=steps, max_rows=max_rows)


def _refuse_sequences(parameters: Parameters) -> None:
    """Refuse a request that belongs to a sequence: our models remember nothing."""
    for name in SEQUENCES:
        if name in parameters:
            raise UnsupportedError(f"{name}: sequences are not supported")
