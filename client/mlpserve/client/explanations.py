"""Explanations: what spoke for a class of each image, and against it; how they are asked for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.client.arguments import checked_number, checked_text, shown
from mlpserve.client.errors import ServerFaultError, invalid_argument
from mlpserve.client.predictions import (
    Predictions,
    join_predictions,
    read_predictions,
    to_pandas,
    to_polars,
)
from mlpserve.client.requests import (
    MAX_BYTES_PER_REQUEST,
    MAX_IMAGES_PER_REQUEST,
    ModelSelector,
    encode_request,
    split,
)
from mlpserve.client.results import parse
from mlpserve.v1 import prediction_pb2

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_BYTES_PER_VALUE: Final = 4  # all are int32 or float32
_INTEGRATED_GRADIENTS: Final = "integrated_gradients"
_METHODS: Final = {
    _INTEGRATED_GRADIENTS: prediction_pb2.EXPLANATION_METHOD_INTEGRATED_GRADIENTS,
    "gradient_times_input": prediction_pb2.EXPLANATION_METHOD_GRADIENT_TIMES_INPUT,
}
# As the contract has them.
_DEFAULT_STEPS: Final = 20
_MAX_STEPS: Final = 256
_MIN_ROWS: Final = 4
_MOST_PROBABLE: Final = -1


@dataclass(frozen=True, eq=False)
class Explanations:
    """What spoke for a class of each image, and against it, one row an image, in their order.

    A logit is what the network computes of a class before softmax makes it a probability. The
    darkest image is that of which each value is the lowest: 0, or that of the model's value range.

    Attributes:
        predictions: The classes and their probabilities, as ``predict`` gives them.
        attributions: (N, D) float32, what each value of an image added to the logit of the class,
            relative to the darkest image; below 0 where it spoke against it.
        classes: (N,) int32, the index of the class of each image that is explained.
        logits: (N,) float32, its logit.
        baseline_logits: (N,) float32, its logit of the darkest image.
    """

    predictions: Predictions
    attributions: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]
    logits: npt.NDArray[np.float32]
    baseline_logits: npt.NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.classes)

    def __getitem__(self, images: slice) -> "Explanations":
        """Return the explanations of a slice of the images; views, nothing is copied."""
        return Explanations(
            self.predictions[images],
            self.attributions[images],
            self.classes[images],
            self.logits[images],
            self.baseline_logits[images],
        )

    @property
    def errors(self) -> npt.NDArray[np.float32]:
        """(N,) what the attributions of each image sum to beyond what it changed in the logit.

        Of integrated gradients that is their error, which more steps make smaller.
        """
        changed = self.logits - self.baseline_logits
        errors: npt.NDArray[np.float32] = self.attributions.sum(axis=1) - changed
        return errors

    def to_pandas(self) -> "pd.DataFrame":
        """Return a row an image: the columns of its prediction, then what speaks for its class.

        These are ``class``, the index of the class that is explained, ``logit``,
        ``baseline_logit``, and ``attribution_0`` and so on, one of each value of an image.

        Raises:
            ClientError: pandas is not installed.
        """
        return to_pandas(self._columns())

    def to_polars(self) -> "pl.DataFrame":
        """Return the same as a frame of polars.

        Raises:
            ClientError: polars is not installed.
        """
        return to_polars(self._columns())

    def _columns(self) -> dict[str, Any]:
        values = {f"attribution_{n}": column for n, column in enumerate(self.attributions.T)}
        return {
            **self.predictions.columns(),
            "class": self.classes,
            "logit": self.logits,
            "baseline_logit": self.baseline_logits,
            **values,
        }


@dataclass(frozen=True)
class Explain:
    """What is to be explained of some images: what an ExplainRequest says beside a PredictRequest.

    Attributes:
        fields: The method and the steps, encoded.
        rows_per_image: As so many predictions the server counts the explanation of an image.
        classes: (N,) int32, little-endian, the class of each image; -1 for the most probable.
    """

    fields: bytes
    rows_per_image: int
    classes: npt.NDArray[np.int32]

    def split(
        self, images: npt.NDArray[Any], *, max_images: int | None
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.int32]]]:
        """Yield (N, D) images in runs, as ``split`` does, and their classes."""
        if max_images is None:  # the answer has a float32 for each value
            of_bytes = MAX_BYTES_PER_REQUEST // (images.shape[1] * np.float32().itemsize)
            max_images = max(1, min(MAX_IMAGES_PER_REQUEST // self.rows_per_image, of_bytes))
        start = 0
        for batch in split(images, max_images=max_images):
            yield batch, self.classes[start : start + len(batch)]
            start += len(batch)

    def requests(
        self,
        batches: Iterable[tuple[npt.NDArray[Any], npt.NDArray[np.int32]]],
        selector: ModelSelector,
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the number of images of each batch, and the ExplainRequest about them."""
        for images, classes in batches:
            named = classes.tobytes() if classes.max() > _MOST_PROBABLE else b""
            own = prediction_pb2.ExplainRequest(classes=named).SerializeToString()
            # The fields that a PredictRequest has as well are written alike.
            yield len(images), encode_request(images, selector) + self.fields + own


def explain(
    method: str | None, steps: int | None, classes: npt.ArrayLike | None, count: int
) -> Explain:
    """Return what is to be explained of so many images, by the arguments of a call.

    Raises:
        InvalidRequestError: One of them is out of its range.
    """
    name = checked_text(method, "method") or _INTEGRATED_GRADIENTS
    if name not in _METHODS:
        raise invalid_argument("method", " or ".join(map(repr, _METHODS)), shown(method))
    message = prediction_pb2.ExplainRequest(method=_METHODS[name])
    rows_per_image = 0
    if name == _INTEGRATED_GRADIENTS:
        rows_per_image = _DEFAULT_STEPS
        if steps is not None:
            expected = f"from 1 to {_MAX_STEPS}"
            rows_per_image = checked_number(steps, "steps", expected, least=1, limit=_MAX_STEPS)
            message.steps = rows_per_image
    elif steps is not None:
        raise invalid_argument("steps", f"none with {name!r}", shown(steps))
    return Explain(
        message.SerializeToString(), max(rows_per_image, _MIN_ROWS), _class_indices(classes, count)
    )


def _class_indices(classes: npt.ArrayLike | None, count: int) -> npt.NDArray[np.int32]:
    if classes is None:
        return np.full(count, _MOST_PROBABLE, "<i4")
    expected = f"an index, or one for each of {count} images"
    try:
        found = np.asarray(classes)
    except Exception as error:  # of any kind, where it is the caller's code that runs here
        raise invalid_argument("classes", expected, shown(classes)) from error
    if found.dtype.kind not in "iu" or found.shape not in ((), (count,)):
        raise invalid_argument("classes", expected, shown(classes))
    limit = np.iinfo(np.int32).max
    if found.min() < _MOST_PROBABLE or found.max() > limit:
        raise invalid_argument("classes", "indices, or -1 for the most probable", shown(classes))
    return np.broadcast_to(found, count).astype("<i4")


def read_explanations(data: bytes, count: int) -> Explanations:
    """Return the explanations in the answer to ``count`` images; read-only views of its bytes.

    Raises:
        ServerFaultError: It is no ExplainResponse, or does not fit the request.
    """
    predictions = read_predictions(data, count)  # its fields are written alike
    response = parse(prediction_pb2.ExplainResponse, data)
    columns = response.classes, response.logits, response.baseline_logits
    column_bytes, of_values = count * _BYTES_PER_VALUE, len(response.attributions)
    if {len(column) for column in columns} != {column_bytes} or of_values % column_bytes:
        raise ServerFaultError(
            f"answer: expected {column_bytes} bytes of classes, logits and baseline_logits of "
            f"{count} images, and a multiple of that of attributions, got "
            f"{', '.join(str(len(column)) for column in columns)} and {of_values}"
        )
    return Explanations(
        predictions,
        np.frombuffer(response.attributions, "<f4").reshape(count, -1),
        np.frombuffer(response.classes, "<i4"),
        np.frombuffer(response.logits, "<f4"),
        np.frombuffer(response.baseline_logits, "<f4"),
    )


def join_explanations(parts: Sequence[Explanations]) -> Explanations:
    """Return the explanations of several requests, at least one, as one answer.

    Raises:
        ServerFaultError: They are not from the one version of the one model that was asked.
    """
    if len(parts) == 1:
        return parts[0]
    return Explanations(
        join_predictions([part.predictions for part in parts]),
        np.concatenate([part.attributions for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.baseline_logits for part in parts]),
    )
