"""Responses of PredictionService, written part by part: whatever follows a message adds to it.

The responses of all its methods have the same fields for what a network says, so that these are
written in one way. They are written by hand, because a message would copy each of them twice.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from google.protobuf.message import Message

from mlpserve.model.compiled import Answer, CompiledModel
from mlpserve.server.grpc_api.wire import length_head
from mlpserve.server.inference.ood_scores import ood_scoring
from mlpserve.server.inference.request import ParsedRequest
from mlpserve.server.telemetry.request_record import RequestRecord
from mlpserve.v1.prediction_pb2 import PredictResponse, Timings

_PROBABILITIES: Final = PredictResponse.PROBABILITIES_FIELD_NUMBER
_LABELS: Final = PredictResponse.LABELS_FIELD_NUMBER
_NS_PER_S: Final = 1_000_000_000


def encode_prediction(model: CompiledModel, answer: Answer) -> bytes:
    """Return the response that says which version answers, and what."""
    metadata = model.metadata
    return b"".join(
        (
            _version(metadata.name, metadata.version),
            length_head(_PROBABILITIES, len(answer.probabilities)),
            answer.probabilities,
            length_head(_LABELS, len(answer.labels)),
            answer.labels,
        )
    )


def with_part(
    request: ParsedRequest[bytes], part: Callable[[Answer], Message]
) -> ParsedRequest[bytes]:
    """Return a request whose response has further fields.

    Args:
        request: The request.
        part: Returns a message with these fields only.
    """
    encode_rest = request.encode
    request.encode = lambda answer: encode_rest(answer) + part(answer).SerializeToString()
    return request


def with_timings(request: ParsedRequest[bytes]) -> ParsedRequest[bytes]:
    """Return a request whose response tells how long it waited and was computed as well."""
    return with_part(request, partial(_timings, request.record))


def with_scores(request: ParsedRequest[bytes]) -> ParsedRequest[bytes]:
    """Return a request whose response has out-of-distribution scores as well.

    Raises:
        RequestError: The version has none.
    """
    scores = ood_scoring(request.model, request.images, "with_ood_scores")
    return with_part(request, lambda answer: PredictResponse(ood_scores=scores(answer)))


@lru_cache
def _version(name: str, version: int) -> bytes:
    return PredictResponse(model_name=name, model_version=version).SerializeToString()


def _timings(record: RequestRecord, _: Answer) -> PredictResponse:
    queue_s = (record.started_ns - record.arrived_ns) / _NS_PER_S
    compute_s = (record.computed_ns - record.started_ns) / _NS_PER_S
    return PredictResponse(timings=Timings(queue_s=queue_s, compute_s=compute_s))
