"""Out-of-distribution scores of answers: computed for those who ask, when their answer is written.

Not in the pass: requests that share one with others cost these nothing by it.
"""

from collections.abc import Callable

import numpy as np

from mlpserve.model.compiled import Answer, CompiledModel, Images
from mlpserve.server.errors import RequestError
from mlpserve.server.inference.decoding import FLOAT32


def ood_scoring(model: CompiledModel, images: Images, field: str) -> Callable[[Answer], bytes]:
    """Return what computes the scores of some images, as (N,) float32, little-endian, in bytes.

    Args:
        model: What is asked.
        images: (N, D), decoded.
        field: By which part of the request they are asked for.

    Raises:
        RequestError: The version has none.
    """
    detector, metadata = model.detector, model.metadata
    if detector is None:
        raise RequestError(
            f"{field}: version {metadata.version} of model {metadata.name!r} has no "
            "out-of-distribution score, because an earlier release trained it, or too few images "
            "were at hand; train it again, or leave this out"
        )

    def scores(answer: Answer) -> bytes:
        probabilities = np.frombuffer(answer.probabilities, FLOAT32).reshape(len(images), -1)
        found = detector.scores(images, probabilities, metadata.input)
        return found.astype(FLOAT32, copy=False).tobytes()

    return scores
