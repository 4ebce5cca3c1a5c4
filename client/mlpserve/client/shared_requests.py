"""Shared requests: what calls must have in common to travel together, and who gets which rows.

What batching of threads and batching of coroutines both do; they differ in who sends, and when.
"""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from mlpserve.client.arguments import checked_number
from mlpserve.client.core import Core
from mlpserve.client.explanations import Explain, Explanations
from mlpserve.client.predictions import Predictions
from mlpserve.client.requests import MAX_IMAGES_PER_REQUEST, ModelSelector

DEFAULT_MAX_ROWS: Final = 256
MIN_TIMEOUT_S: Final = 0.001  # of a request whose callers have hardly any time left


class Caller(Protocol):
    """Whoever waits for the answer to some rows."""

    images: npt.NDArray[Any]
    classes: npt.NDArray[np.int32] | None


AnswerT = TypeVar("AnswerT", Predictions, Explanations)
CallerT = TypeVar("CallerT", bound=Caller)


class Kind(NamedTuple, Generic[AnswerT]):
    """What calls must have in common to share a request.

    Attributes:
        ask: What asks for the rows of such calls: ``ask_to_predict`` or ``ask_to_explain``.
        selector: The model, which version of it, and what the answer is to say.
        is_named: Whether the names of the classes are asked for.
        dtype: The data type of the images.
        width: How many values an image has.
        max_rows: The most images that a request may have.
        timeout_s: How long the calls may take, where that counts too.
        method: How to explain; None for the usual, and where nothing is explained.
        steps: In how many steps, likewise.
    """

    ask: "Callable[[Core, Kind[AnswerT], Sequence[Caller], float], Coroutine[Any, Any, AnswerT]]"
    selector: ModelSelector
    is_named: bool
    dtype: str
    width: int
    max_rows: int
    timeout_s: float | None = None
    method: str | None = None
    steps: int | None = None


async def ask_to_predict(
    core: Core, kind: Kind[Predictions], callers: Sequence[Caller], timeout_s: float
) -> Predictions:
    """Return the predictions of the rows of some callers, one after the other."""
    selector = kind.selector
    return await core.predict(
        _joined(callers),
        model=selector.model,
        version=selector.version,
        label=selector.label,
        timeout_s=timeout_s,
        class_names=kind.is_named,
        timings=selector.with_timings,
        ood_scores=selector.with_ood_scores,
    )


async def ask_to_explain(
    core: Core, kind: Kind[Explanations], callers: Sequence[Caller], timeout_s: float
) -> Explanations:
    """Return the explanations of the rows of some callers, one after the other."""
    selector = kind.selector
    return await core.explain(
        _joined(callers),
        classes=np.concatenate(
            [caller.classes for caller in callers if caller.classes is not None]
        ),
        method=kind.method,
        steps=kind.steps,
        model=selector.model,
        version=selector.version,
        label=selector.label,
        timeout_s=timeout_s,
        class_names=kind.is_named,
        timings=selector.with_timings,
    )


def rows_of(callers: Sequence[Caller]) -> int:
    """Return how many rows some callers have together."""
    return sum(len(caller.images) for caller in callers)


def _joined(callers: Sequence[Caller]) -> npt.NDArray[Any]:
    if len(callers) == 1:
        return callers[0].images
    return np.concatenate([caller.images for caller in callers])


def parted(found: AnswerT, callers: Sequence[CallerT]) -> Iterator[tuple[CallerT, AnswerT]]:
    """Yield each caller with the answer to its own rows, out of that to those of all."""
    start = 0
    for caller in callers:
        stop = start + len(caller.images)
        yield caller, found[start:stop]
        start = stop


def max_explained(max_rows: int, explained: Explain) -> int:
    """Return how many images a request to explain may have, as it takes long for each."""
    return max(1, min(max_rows, MAX_IMAGES_PER_REQUEST // explained.rows_per_image))


def checked_max_rows(max_rows: int | None) -> int:
    """Return how many rows a joined request may have.

    Raises:
        InvalidRequestError: It is no number, or out of its range.
    """
    return checked_number(
        DEFAULT_MAX_ROWS if max_rows is None else max_rows,
        "max_rows",
        f"from 1 to {MAX_IMAGES_PER_REQUEST}",
        least=1,
        limit=MAX_IMAGES_PER_REQUEST,
    )
