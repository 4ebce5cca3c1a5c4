"""Explanations: what spoke for a class of each image, and against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.client.errors import ServerFaultError
from mlpserve.client.predictions import (
    Predictions,
    join_predictions,
    read_predictions,
    to_pandas,
    to_polars,
)
from mlpserve.client.results import parse
from mlpserve.v1 import prediction_pb2

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_BYTES_PER_VALUE: Final = 4  # all are int32 or float32


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
