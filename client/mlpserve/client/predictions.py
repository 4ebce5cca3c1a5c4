"""Predictions: the answer to a batch of images, and the forms that it can be brought into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve.client.arguments import checked_number
from mlpserve.client.errors import ClientError, ServerFaultError
from mlpserve.client.results import parse
from mlpserve.v1 import prediction_pb2

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_BYTES_PER_VALUE: Final = 4  # of an int32 label and of a float32 probability


class ServerTimings(NamedTuple):
    """Where a server spent its time; of a call with several requests, the sums of all.

    Attributes:
        queue_s: Seconds from the arrival of a request until its network started.
        compute_s: Seconds that the network took, for all requests that shared the pass.
    """

    queue_s: float
    compute_s: float


class TopClasses(NamedTuple):
    """The most probable classes of each image, the most probable first.

    Attributes:
        labels: (N, k) intp, their indices; the lower first where two are equally probable.
        probabilities: (N, k) float32, how probable each is.
    """

    labels: npt.NDArray[np.intp]
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answer to a batch of images, one row an image, in their order.

    Attributes:
        labels: (N,) int32, the index of the most probable class of each image in the model's
            class labels.
        probabilities: (N, K) float32, the probability of each class; each row sums to 1.
        model_name: The model that answered.
        model_version: The version of it that answered, for all images.
        class_names: What each class is called, in the order of the columns; None unless the call
            asked for them.
        timings: Where the server spent its time; None unless the call asked for it.
        ood_scores: (N,) float32, the out-of-distribution scores: the higher, the less an image
            looks like those that the version learned from; None unless the call asked for them.
        ood_threshold: The score above which an image does not look like them; None as above.
    """

    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    model_name: str
    model_version: int
    class_names: tuple[str, ...] | None = None
    timings: ServerTimings | None = None
    ood_scores: npt.NDArray[np.float32] | None = None
    ood_threshold: float | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, images: slice) -> "Predictions":
        """Return the predictions of a slice of the images; views, nothing is copied."""
        return replace(
            self,
            labels=self.labels[images],
            probabilities=self.probabilities[images],
            ood_scores=None if self.ood_scores is None else self.ood_scores[images],
        )

    @property
    def out_of_distribution(self) -> npt.NDArray[np.bool_]:
        """Whether each image, (N,), does not look like those that the version learned from.

        Raises:
            ClientError: The call did not ask for the scores.
        """
        if self.ood_scores is None or self.ood_threshold is None:
            raise ClientError(
                "out_of_distribution: expected scores, but the call did not ask for them: "
                "predict(..., ood_scores=True)"
            )
        return self.ood_scores > np.float32(self.ood_threshold)

    @property
    def names(self) -> list[str]:
        """The name of the most probable class of each image.

        Raises:
            ClientError: The call did not ask for the names.
        """
        if self.class_names is None:
            raise ClientError(
                "names: expected class names, but the call did not ask for them: "
                "predict(..., class_names=True)"
            )
        return [self.class_names[label] for label in self.labels]

    def top(self, k: int) -> TopClasses:
        """Return the ``k`` most probable classes of each image, or all where there are fewer.

        Raises:
            InvalidRequestError: ``k`` is no number, or below 1.
        """
        classes = self.probabilities.shape[1]
        count = min(checked_number(k, "k", "at least 1", least=1, limit=2**63), classes)
        labels = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        return TopClasses(labels, np.take_along_axis(self.probabilities, labels, axis=1))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON has: texts, numbers, lists."""
        found: dict[str, Any] = {
            "model_name": self.model_name,
            "model_version": self.model_version,
            "labels": self.labels.tolist(),
            "probabilities": self.probabilities.tolist(),
        }
        if self.class_names is not None:
            found |= {"names": self.names, "class_names": list(self.class_names)}
        if self.timings is not None:
            found["timings"] = self.timings._asdict()
        if self.ood_scores is not None:
            found |= {
                "ood_scores": self.ood_scores.tolist(),
                "out_of_distribution": self.out_of_distribution.tolist(),
            }
        return found

    def to_pandas(self) -> "pd.DataFrame":
        """Return a row an image: label, name and scores where known, probability of each class.

        Raises:
            ClientError: pandas is not installed.
        """
        return to_pandas(self.columns())

    def to_polars(self) -> "pl.DataFrame":
        """Return the same as a frame of polars.

        Raises:
            ClientError: polars is not installed.
        """
        return to_polars(self.columns())

    def columns(self) -> dict[str, Any]:
        """Return the columns of ``to_pandas``, without any library of frames."""
        classes = self.class_names or range(self.probabilities.shape[1])
        columns: dict[str, Any] = {"label": self.labels}
        if self.class_names is not None:
            columns["name"] = self.names
        if self.ood_scores is not None:
            columns["ood_score"] = self.ood_scores
            columns["out_of_distribution"] = self.out_of_distribution
        for number, name in enumerate(classes):
            columns[f"probability_{name}"] = self.probabilities[:, number]
        return columns


def to_pandas(columns: Mapping[str, Any]) -> "pd.DataFrame":
    """Return columns as a frame.

    Raises:
        ClientError: pandas is not installed.
    """
    frame: pd.DataFrame = _package("pandas").DataFrame(columns)
    return frame


def to_polars(columns: Mapping[str, Any]) -> "pl.DataFrame":
    """Return columns as a frame.

    Raises:
        ClientError: polars is not installed.
    """
    frame: pl.DataFrame = _package("polars").DataFrame(columns)
    return frame


def _package(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return import_module(name)
    except ImportError as error:
        raise ClientError(f"to_{name}: needs {name}: pip install {name}") from error


def read_predictions(data: bytes, count: int) -> Predictions:
    """Return the predictions in the answer to ``count`` images; read-only views of its bytes.

    Args:
        data: A PredictResponse, or a PredictStreamResponse, which is written alike.
        count: The number of images that it must be about.

    Raises:
        ServerFaultError: It is no such message, or does not fit the request.
    """
    response = parse(prediction_pb2.PredictResponse, data)
    column_bytes = count * _BYTES_PER_VALUE
    sizes = len(response.labels), len(response.probabilities)
    if sizes[0] != column_bytes or not sizes[1] or sizes[1] % column_bytes:
        raise ServerFaultError(
            f"answer: expected {column_bytes} bytes of labels of {count} images, and a multiple of "
            f"that of probabilities, got {sizes[0]} and {sizes[1]}"
        )
    labels = np.frombuffer(response.labels, "<i4")
    probabilities = np.frombuffer(response.probabilities, "<f4").reshape(count, -1)
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ServerFaultError(
            f"answer: expected labels below {probabilities.shape[1]}, the number of classes, "
            f"got {labels.min()} to {labels.max()}"
        )
    return Predictions(
        labels=labels,
        probabilities=probabilities,
        model_name=response.model_name,
        model_version=response.model_version,
        timings=_read_timings(response),
        ood_scores=_read_scores(response, count),
    )


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several requests, at least one, as one answer.

    Raises:
        ServerFaultError: They are not from the one version of the one model that was asked.
    """
    if len(parts) == 1:
        return parts[0]
    sources = {(part.model_name, part.model_version, part.probabilities.shape[1]) for part in parts}
    if len(sources) > 1:
        raise ServerFaultError(
            f"answer: expected one name, version and number of classes, got {sorted(sources)}"
        )
    return Predictions(
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        model_name=parts[0].model_name,
        model_version=parts[0].model_version,
        timings=_sum_timings([part.timings for part in parts if part.timings is not None]),
        ood_scores=_joined([part.ood_scores for part in parts if part.ood_scores is not None]),
    )


def _read_timings(response: prediction_pb2.PredictResponse) -> ServerTimings | None:
    if not response.HasField("timings"):
        return None
    return ServerTimings(response.timings.queue_s, response.timings.compute_s)


def _read_scores(
    response: prediction_pb2.PredictResponse, count: int
) -> npt.NDArray[np.float32] | None:
    if not response.ood_scores:
        return None
    if len(response.ood_scores) != count * _BYTES_PER_VALUE:
        raise ServerFaultError(
            f"answer: expected {count * _BYTES_PER_VALUE} bytes of scores of {count} images, "
            f"got {len(response.ood_scores)}"
        )
    return np.frombuffer(response.ood_scores, "<f4")


def _joined(parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32] | None:
    return np.concatenate(parts) if parts else None


def _sum_timings(parts: Sequence[ServerTimings]) -> ServerTimings | None:
    if not parts:
        return None
    return ServerTimings(sum(part.queue_s for part in parts), sum(part.compute_s for part in parts))
