"""Explanations: checked, and computed in parts that take their turns in the queue.

    request of 50 images, 20 steps -- parts --> 25 images | 25 images --> joined to one answer

A row of an explanation is about as much work as an image that is classified: one step of integrated
gradients, but of one image never less than four. (It is less where the first layer is the largest,
and twice as much where the others are far larger.) A part has as many rows as a pass, so that
nobody waits for more than a pass behind it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from mlpserve.model.compiled import MOST_PROBABLE, Answer, Attributions, CompiledModel
from mlpserve.server.errors import RequestError
from mlpserve.server.inference.request import (
    LOWEST_PRIORITY,
    Explanation,
    Outcome,
    ParsedRequest,
)

_ResponseT = TypeVar("_ResponseT")

MAX_STEPS: Final = 256


def checked_explanation(
    model: CompiledModel,
    count: int,
    classes: npt.NDArray[np.int32],
    *,
    steps: int | None,
    max_rows: int,
) -> Explanation:
    """Return what is to be explained of so many images.

    Args:
        model: The model version that is asked.
        count: How many images.
        classes: The classes to explain, one for each image; of none, all are ``MOST_PROBABLE``.
        steps: Those of integrated gradients; None for gradient times input.
        max_rows: As so many rows all may count; an image alone may have all ``MAX_STEPS``.

    Raises:
        RequestError: Something of it is out of its range.
    """
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise RequestError(f"steps: expected from 1 to {MAX_STEPS}, got {steps}")
    wanted = classes if len(classes) else np.full(count, MOST_PROBABLE, np.int32)
    explanation = Explanation(steps or 0, wanted)
    rows = explanation.rows_per_image
    max_images = max(1, max_rows // rows)
    if count > max_images:
        raise RequestError(
            f"images.count: expected from 1 to {max_images} images to explain, because each counts "
            f"as {rows}, its steps or at least 4, and all as at most {max_rows}, got {count}"
        )
    last = len(model.metadata.class_labels) - 1
    lowest, highest = int(wanted.min()), int(wanted.max())
    if lowest < MOST_PROBABLE or highest > last:
        raise RequestError(
            f"classes: expected from 0 to {last}, or {MOST_PROBABLE} for the most probable, "
            f"got {highest if highest > last else lowest}"
        )
    return explanation


def to_be_explained(
    request: ParsedRequest[_ResponseT], explanation: Explanation
) -> ParsedRequest[_ResponseT]:
    """Return a request for predictions as one whose images are explained as well."""
    request.explanation = explanation
    request.rows = len(request.images) * explanation.rows_per_image
    request.priority = LOWEST_PRIORITY  # its caller's predictions are not to wait for it
    return request


def in_parts(whole: ParsedRequest[Any], max_rows: int) -> list[ParsedRequest[Any]]:
    """Return the parts of an explanation, each a request of its own; the last finishes the whole.

    Args:
        whole: The request.
        max_rows: A part has no more rows, but for a single image.
    """
    explanation = whole.explanation
    if explanation is None or whole.rows <= max_rows or len(whole.images) == 1:
        return [whole]
    images_at_once = max(1, max_rows // explanation.rows_per_image)
    starts = range(0, len(whole.images), images_at_once)
    answers: dict[int, Answer] = {}

    def take(start: int, taken: ParsedRequest[Any], outcome: Outcome) -> None:
        if whole.outcome is not None:  # another part has failed
            return
        try:
            if not isinstance(outcome, Exception):
                answers[start] = outcome
                whole.record.started_ns = whole.record.started_ns or taken.record.started_ns
                whole.record.computed_ns = taken.record.computed_ns
                if len(answers) < len(starts):
                    return
                outcome = _joined([answers[start] for start in starts])
        except Exception as error:  # noqa: BLE001 - or nobody would ever be told
            outcome = error
        whole.finish(outcome)

    def is_wanted() -> bool:
        return whole.outcome is None and whole.is_wanted()

    def part(start: int) -> ParsedRequest[Any]:
        images = whole.images[start : start + images_at_once]
        return replace(
            whole,
            images=images,
            rows=len(images) * explanation.rows_per_image,
            explanation=explanation.of(slice(start, start + images_at_once)),
            record=replace(whole.record),
            timeout_ns=0 if start else whole.timeout_ns,  # it is for the first to have its turn
            is_wanted=is_wanted,
            on_outcome=partial(take, start),
        )

    return [part(start) for start in starts]


def _joined(parts: Sequence[Answer]) -> Answer:
    """Return the answers to the parts of one request as one."""
    attributions = [part.attributions for part in parts if part.attributions is not None]
    return Answer(
        b"".join(part.probabilities for part in parts),
        b"".join(part.labels for part in parts),
        Attributions(*(b"".join(columns) for columns in zip(*attributions, strict=True))),
    )
