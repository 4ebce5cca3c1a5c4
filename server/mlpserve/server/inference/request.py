"""Parsed request: what the queue and the batcher know of a request, whatever its protocol.

    bytes -- parse --> ParsedRequest -- queue --> batcher -- outcome --> encode --> bytes

An endpoint reads the bytes of its protocol once and makes one of these; nothing after it knows the
protocol.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from mlpserve.model.compiled import Answer, CompiledModel, Images
from mlpserve.server.inference.registry import SplitKey
from mlpserve.server.telemetry.request_record import RequestRecord

logger = logging.getLogger(__name__)

HIGHEST_PRIORITY: Final = 1
NORMAL_PRIORITY: Final = 2
LOWEST_PRIORITY: Final = 3

# Of one image that is explained: it is classified, its logits are computed, and the first layer is
# passed twice.
_MIN_ROWS: Final = 4

Outcome: TypeAlias = Answer | Exception
_ResponseT = TypeVar("_ResponseT")


def _always() -> bool:
    return True


class Explanation(NamedTuple):
    """What is to be explained of the images of a request; see ``CompiledModel.explanations``.

    Attributes:
        steps: Those of integrated gradients; 0 for gradient times input.
        classes: (N,) the index of the class of each image, or ``MOST_PROBABLE``.
    """

    steps: int
    classes: npt.NDArray[np.int32]

    @property
    def rows_per_image(self) -> int:
        """Return as how many rows an image counts: about so many predictions it costs."""
        return max(self.steps, _MIN_ROWS)

    def of(self, images: slice) -> "Explanation":
        """Return what is to be explained of some of the images."""
        return self._replace(classes=self.classes[images])


@dataclass(eq=False, slots=True)
class ParsedRequest(Generic[_ResponseT]):
    """A batch of images of one caller, found good, on its way through the queue.

    Attributes:
        model: The model version that is asked.
        images: (N, D), N at least 1, uint8, or float32 from 0 to 1.
        rows: As how many rows it counts in the queue and in a pass: one an image, but for
            explanations.
        encode: Writes the response that carries the answer.
        record: Who asks, when the request came, and for how long the caller waits.
        priority: From ``HIGHEST_PRIORITY`` to ``LOWEST_PRIORITY``; of one caller's requests a
            higher one has its turn first.
        timeout_ns: So long after its arrival it may wait for its turn; 0 for no limit.
        explanation: What is to be explained; None where the images are classified only.
        is_wanted: Whether anybody still waits for the answer.
        on_outcome: Called once, with this request and its outcome; None where somebody waits for it
            in ``Batcher.wait``.
        outcome: The answer, or the error in its place; None as long as there is neither.
    """

    model: CompiledModel
    images: Images
    rows: int
    encode: Callable[[Answer], _ResponseT]
    record: RequestRecord
    priority: int = NORMAL_PRIORITY
    timeout_ns: int = 0
    explanation: Explanation | None = None
    is_wanted: Callable[[], bool] = _always
    on_outcome: "Callable[[ParsedRequest[Any], Outcome], None] | None" = None
    outcome: Outcome | None = None

    def has_timed_out(self, now_ns: int) -> bool:
        """Return whether it has waited for longer than its own timeout allows."""
        return 0 < self.timeout_ns < now_ns - self.record.arrived_ns

    def left_s(self, now_ns: int) -> float:
        """Return the seconds until the deadline."""
        return self.record.remaining_s - (now_ns - self.record.arrived_ns) / 1e9

    def goes_with(self, other: "ParsedRequest[Any]") -> bool:
        """Return whether both can go through a network together."""
        if self.model is not other.model or self.images.dtype != other.images.dtype:
            return False
        own, others = self.explanation, other.explanation
        if own is None or others is None:
            return own is others
        return own.steps == others.steps

    def finish(self, outcome: Outcome) -> None:
        """Set the outcome, and hand it to whoever is to be called."""
        self.outcome = outcome
        if self.on_outcome is not None:
            try:
                self.on_outcome(self, outcome)
            except Exception:  # a caller who cannot be reached is no reason to forget the others
                logger.exception("an answer could not be given")


# Reads the bytes of a request. Raises the errors of `mlpserve.server.errors`.
Parse: TypeAlias = Callable[[bytes, RequestRecord, SplitKey], ParsedRequest[bytes]]
