"""Shared requests: what calls must have in common to travel together, and who gets which rows.

What batching of threads and batching of coroutines both do; they differ in who sends, and when.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from mlpserve.client.arguments import checked_number
from mlpserve.client.predictions import Predictions
from mlpserve.client.requests import MAX_IMAGES_PER_REQUEST, ModelSelector

DEFAULT_MAX_ROWS: Final = 256
MIN_TIMEOUT_S: Final = 0.001  # of a request whose callers have hardly any time left


class Kind(NamedTuple):
    """What calls must have in common to share a request.

    Attributes:
        selector: The model, which version of it, and what the answer is to say.
        is_named: Whether the names of the classes are asked for.
        dtype: The data type of the images.
        width: How many values an image has.
        timeout_s: How long the calls may take, where that counts too.
    """

    selector: ModelSelector
    is_named: bool
    dtype: str
    width: int
    timeout_s: float | None = None

    @property
    def arguments(self) -> "Arguments":
        """What ``Core.predict`` is given beside images and timeout."""
        return {
            "model": self.selector.model,
            "version": self.selector.version,
            "label": self.selector.label,
            "class_names": self.is_named,
            "timings": self.selector.with_timings,
            "ood_scores": self.selector.with_ood_scores,
        }


class Arguments(TypedDict):
    """Arguments of ``Core.predict``."""

    model: str
    version: int
    label: str
    class_names: bool
    timings: bool
    ood_scores: bool


class Caller(Protocol):
    """Whoever waits for the answer to some rows."""

    images: npt.NDArray[Any]


_Caller = TypeVar("_Caller", bound=Caller)


def rows_of(callers: Sequence[Caller]) -> int:
    """Return how many rows some callers have together."""
    return sum(len(caller.images) for caller in callers)


def joined(callers: Sequence[Caller]) -> npt.NDArray[Any]:
    """Return the rows of some callers, one after the other."""
    return np.concatenate([caller.images for caller in callers])


def parted(found: Predictions, callers: Sequence[_Caller]) -> Iterator[tuple[_Caller, Predictions]]:
    """Yield each caller with the answer to its own rows, out of that to those of ``joined``."""
    start = 0
    for caller in callers:
        stop = start + len(caller.images)
        yield caller, found[start:stop]
        start = stop


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
