"""Model of the server for tests: it answers as it is told, or as a tiny network of its own."""

import math
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import prediction_pb2

DTYPES: Final[dict[prediction_pb2.DataType, np.dtype[Any]]] = {
    prediction_pb2.DATA_TYPE_UINT8: np.dtype(np.uint8),
    prediction_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
}
_MAX_IMAGES: Final = 8192
_TINY: Final = np.float32(1e-6)


class AnyNetwork(Protocol):
    """What can answer, as ``mlpserve.model.network.Network`` can."""

    def probabilities(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the (N, K) probabilities of (N, D) images, whose values are from 0 to 1."""


class FakeModel:
    """One version of one model, and what it is to answer; for its arguments see ``FakeServer``.

    Attributes:
        ood_threshold: The out-of-distribution score above which an image does not look like what
            the model learned from.
    """

    def __init__(
        self,
        network: AnyNetwork | None,
        *,
        model: str,
        version: int,
        class_labels: Sequence[str],
        input_shape: Sequence[int],
    ) -> None:
        self.class_labels = tuple(class_labels)
        self.model, self.version = model, version
        self.input_shape = tuple(input_shape)
        self.ood_threshold = 1.0
        self._network = network
        self.forget_answers()

    def forget_answers(self) -> None:
        """Answer as the network does, as at first."""
        self._fixed: npt.NDArray[np.float32] | None = None
        self._ood_scores = np.zeros(1, np.float32)

    def answer_labels(self, labels: Sequence[int]) -> None:
        """Answer with these labels from now on, each with probability 1.

        Args:
            labels: Of the images of a request, in their order; where there are more images, from
                the first label again.
        """
        self.answer_probabilities(np.eye(len(self.class_labels))[list(labels)])

    def answer_probabilities(self, probabilities: npt.ArrayLike) -> None:
        """Answer with these probabilities from now on.

        Args:
            probabilities: (K,) for each image, or (M, K) for the images of a request; where there
                are more than M, from the first row again.

        Raises:
            ValueError: K is not the number of classes.
        """
        fixed = np.atleast_2d(np.asarray(probabilities, np.float32))
        if fixed.shape[1:] != (len(self.class_labels),):
            raise ValueError(
                f"probabilities: expected {len(self.class_labels)} of each image, one for each of "
                f"class_labels, got shape {np.shape(probabilities)}"
            )
        self._fixed = fixed

    def answer_ood_scores(self, scores: npt.ArrayLike) -> None:
        """Answer with these out-of-distribution scores from now on, where they are asked for.

        Args:
            scores: Of the images of a request, in their order; where there are more images, from
                the first again. ``ood_threshold`` is 1. Without this call, all scores are 0.
        """
        self._ood_scores = np.atleast_1d(np.asarray(scores, np.float32))

    def probabilities(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the (N, K) float32 answer to (N, D) images."""
        if self._fixed is not None:
            return np.resize(self._fixed, (len(images), self._fixed.shape[1]))
        scaled = images.astype(np.float32)
        if images.dtype == np.uint8:
            scaled /= np.iinfo(np.uint8).max
        network = self._network or _TinyNetwork(images.shape[1], len(self.class_labels))
        return network.probabilities(scaled)

    def explanations(
        self, images: npt.NDArray[Any], classes: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return (N, D) attributions, and the (N,) logits of classes and of the darkest image.

        They are made up, but complete: what an image changed in the logit, the logarithm of its
        probability here, is shared among its values by how bright they are.
        """
        values = images.astype(np.float32) + _TINY
        shares = values / values.sum(axis=1, keepdims=True)
        found = (self.probabilities(each) for each in (images, np.zeros_like(images)))
        chosen = classes[:, np.newaxis]
        logits, baseline = (
            np.log(np.take_along_axis(each, chosen, axis=1) + _TINY) for each in found
        )
        return shares * (logits - baseline), logits[:, 0], baseline[:, 0]

    def ood_scores(self, count: int) -> bytes:
        """Return the scores of so many images, as they are sent."""
        return np.resize(self._ood_scores, count).astype("<f4").tobytes()

    def description(self) -> prediction_pb2.Model:
        """Return what the server says of its model."""
        version = prediction_pb2.ModelVersion(
            version=self.version,
            layer_sizes=[math.prod(self.input_shape), len(self.class_labels)],
            activations=["softmax"],
            input_shape=self.input_shape,
            input_data_types=list(DTYPES),
            class_labels=self.class_labels,
            ood_threshold=self.ood_threshold,
        )
        return prediction_pb2.Model(
            name=self.model,
            versions=[version],
            max_batch_images=_MAX_IMAGES,
            default_version=self.version,
        )


class _TinyNetwork:
    """One layer with softmax, whose weights are random and always the same."""

    def __init__(self, inputs: int, classes: int) -> None:
        rng = np.random.default_rng(inputs)
        self._weights = rng.normal(0, inputs**-0.5, (inputs, classes)).astype(np.float32)

    def probabilities(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        powers = np.exp(inputs @ self._weights)
        shares: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return shares
