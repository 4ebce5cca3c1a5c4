"""Messages of Explain: the request's own fields checked, the response's written."""

from typing import Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.attribution import DEFAULT_STEPS
from mlpserve.model.compiled import Answer
from mlpserve.server.errors import RequestError
from mlpserve.server.grpc_api.responses import with_part
from mlpserve.server.inference.explanation import checked_explanation, to_be_explained
from mlpserve.server.inference.request import ParsedRequest
from mlpserve.v1 import prediction_pb2

_GRADIENT: Final = prediction_pb2.EXPLANATION_METHOD_GRADIENT_TIMES_INPUT
_INT32: Final = np.dtype("<i4")


def with_explanation(
    request: ParsedRequest[bytes], message: prediction_pb2.ExplainRequest, *, max_rows: int
) -> ParsedRequest[bytes]:
    """Return a request to classify images as one to explain them as well.

    Args:
        request: What it asks beside, and what writes the fields that PredictResponse has as well.
        message: What it was parsed from.
        max_rows: See ``checked_explanation``.

    Raises:
        RequestError: A field of it is wrong.
    """
    count = len(request.images)
    explanation = checked_explanation(
        request.model,
        count,
        _classes(message.classes, count),
        steps=_steps(message),
        max_rows=max_rows,
    )
    return to_be_explained(with_part(request, _attributions), explanation)


def _attributions(answer: Answer) -> prediction_pb2.ExplainResponse:
    assert answer.attributions is not None  # noqa: S101 - they were asked for
    return prediction_pb2.ExplainResponse(
        attributions=answer.attributions.values,
        classes=answer.attributions.classes,
        logits=answer.attributions.logits,
        baseline_logits=answer.attributions.baseline_logits,
    )


def _steps(message: prediction_pb2.ExplainRequest) -> int | None:
    """Return the steps of integrated gradients; None for gradient times input."""
    if message.method not in prediction_pb2.ExplanationMethod.values():
        names = ", ".join(prediction_pb2.ExplanationMethod.keys()[1:])
        raise RequestError(f"method: expected {names}, got {message.method}")
    has_steps = message.HasField("steps")
    if message.method != _GRADIENT:
        return message.steps if has_steps else DEFAULT_STEPS
    if has_steps:
        raise RequestError(
            f"steps: expected none with EXPLANATION_METHOD_GRADIENT_TIMES_INPUT, "
            f"got {message.steps}"
        )
    return None


def _classes(data: bytes, count: int) -> npt.NDArray[np.int32]:
    if len(data) not in {0, count * _INT32.itemsize}:
        raise RequestError(
            f"classes: expected {count * _INT32.itemsize} bytes ({count} int32 values, one for "
            f"each image), or none, got {len(data)}"
        )
    return np.frombuffer(data, _INT32)
