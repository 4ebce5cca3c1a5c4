"""Out-of-distribution score: how little an image looks like those that a network learned from.

A network names a class for whatever it is shown, often with much confidence. The score asks two
questions, and adds the answers.

Does the image lie where the images of some class lie? Those of class c are near a flat: its mean
``m_c`` and the k directions ``U_c`` in which its images differ most (its principal components).
What an image x has beyond the flat, as a multiple of what images of the class have, ``v_c``:

    d(x) = min over c of |(I - U_c U_c') (x - m_c)|^2 / v_c

Source: Wold, Pattern recognition by means of disjoint principal components models (1976).

``log d`` of held-out images is about normal, with a mean and a standard deviation. An image is odd
where it is far from the mean on either side: an empty page is nearer to all flats than any digit.

    t(x) = |log d(x) - mean| / std

Source: Nalisnick et al., Detecting Out-of-Distribution Inputs to Deep Generative Models Using
Typicality (2019).

Is the network in doubt? With p the probability of the most probable class:

    u(x) = max((log((1 - p) / p) - mean) / std, -1)

Networks are often sure of what they have never seen, so that no certainty makes up for more than
one standard deviation.
Source: Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution
Examples in Neural Networks (2017), which takes p itself.

The score is ``t + u``. Its threshold is what one in a hundred of the held-out images is beyond.

In the weights file, with M classes of which there were images, and D values an image:
``ood_means`` (M, D), ``ood_directions`` (M, k, D), ``ood_variances`` (M,), float32, and
``ood_calibration``, the float64 attributes of ``OodDetector`` from ``distance_mean`` on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import FloatArray
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.inputs import InputSpec

Floats: TypeAlias = npt.NDArray[np.float32]

MAX_FITTED_VALUES: Final = 32 * 1024**2
"""So many values, of all images together, are enough to fit to."""

MAX_FITTED_IMAGES: Final = 10_000
_ALARM_SHARE: Final = 0.01  # of held-out images
_DIRECTIONS: Final = 8
_MAX_DIRECTIONS: Final = 320  # of all classes together
_MIN_IMAGES: Final = 3  # of a class; of one, and of two, there is nothing beyond the flat
_MIN_HELD_OUT: Final = 20
_OVERSAMPLING: Final = 8
_ROUNDS: Final = 6
_MIN_DISTANCE: Final = 1e-6
_MIN_VARIANCE: Final = 1e-4
_MIN_STD: Final = 0.1
_MIN_DOUBT: Final = -1.0  # in standard deviations
_MAX_PROBABILITY: Final = np.float32(1 - 1e-6)
_MAX_MAGNITUDE: Final = 1.001  # of a mean of inputs, and of a part of a direction
_CHUNK_ROWS: Final = 512
_ARRAYS: Final = ("ood_means", "ood_directions", "ood_variances")
_CALIBRATION: Final = "ood_calibration"


@dataclass(frozen=True, eq=False)
class OodDetector:
    """What the out-of-distribution score of one network needs; checked when it is made.

    Attributes:
        means: (M, D) float32, the mean image of each class, as inputs from 0 to 1.
        directions: (M, k, D) float32; those of a class are orthonormal.
        variances: (M,) float32 above 0, the mean square beyond the flat.
        distance_mean: The mean of ``log d`` of held-out images.
        distance_std: Its standard deviation.
        doubt_mean: The mean of ``log((1 - p) / p)`` of held-out images.
        doubt_std: Its standard deviation.
        threshold: Beyond it, an image does not look like what was learned; a float32.
        test_share: The share of the test images that are beyond it, 0 to 1.

    Raises:
        WeightsFileError: A dtype, a shape or a value is another.
    """

    means: Floats
    directions: Floats
    variances: Floats
    distance_mean: float
    distance_std: float
    doubt_mean: float
    doubt_std: float
    threshold: float
    test_share: float = 0.0

    def __post_init__(self) -> None:
        classes, values = (*self.means.shape, 1, 1)[:2]
        _check(_ARRAYS[0], self.means, (classes, values), _MAX_MAGNITUDE)
        count = (*self.directions.shape, 1, 1)[1]
        _check(_ARRAYS[1], self.directions, (classes, count, values), _MAX_MAGNITUDE)
        _check(_ARRAYS[2], self.variances, (classes,), math.inf)
        if self.variances.min() < np.float32(_MIN_VARIANCE):
            raise WeightsFileError(
                f"{_ARRAYS[2]}: expected at least {_MIN_VARIANCE:g}, got {self.variances.min():.3g}"
            )
        if not np.isfinite(self._calibration).all() or min(self.distance_std, self.doubt_std) <= 0:
            raise WeightsFileError(
                f"{_CALIBRATION}: expected finite values, and standard deviations above 0, got "
                f"{self._calibration}"
            )
        if not 0 <= self.test_share <= 1:
            raise WeightsFileError(
                f"{_CALIBRATION}: test_share: expected 0 to 1, got {self.test_share:g}"
            )

    def scores(
        self, images: npt.NDArray[Any], probabilities: FloatArray, spec: InputSpec
    ) -> Floats:
        """Return the (N,) scores of images; the higher, the less they look like what was learned.

        Args:
            images: (N, ...) integers or floats as the network takes them.
            probabilities: (N, K), what the network says of them.
            spec: What the network takes.
        """
        distances, doubts = self.parts(images, probabilities, spec)
        oddness = np.abs(distances - self.distance_mean) / self.distance_std
        doubt = np.maximum((doubts - self.doubt_mean) / self.doubt_std, _MIN_DOUBT)
        scores: Floats = (oddness + doubt).astype(np.float32, copy=False)
        return scores

    def parts(
        self, images: npt.NDArray[Any], probabilities: FloatArray, spec: InputSpec
    ) -> tuple[Floats, Floats]:
        """Return ``log d`` and ``log((1 - p) / p)``, (N,) each; arguments as for ``scores``."""
        distances, doubts = np.empty((2, len(images)), np.float32)
        for start in range(0, len(images), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            distances[rows] = self._log_distances(spec.scale(images[rows]))
            sure = np.minimum(probabilities[rows].max(axis=1), _MAX_PROBABILITY)
            doubts[rows] = np.log((1 - sure) / sure)
        return distances, doubts

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the entries of the weights file."""
        arrays = dict(zip(_ARRAYS, (self.means, self.directions, self.variances), strict=True))
        return {**arrays, _CALIBRATION: np.array(self._calibration)}

    @property
    def _calibration(self) -> list[float]:
        return [getattr(self, field.name) for field in fields(self)[len(_ARRAYS) :]]

    @cached_property
    def _projection(self) -> tuple[Floats, Floats]:
        """Return what an image is multiplied with, and the square of what a mean has beyond.

        With ``r_c = (I - U_c U_c') m_c``, the square of what x has beyond the flat is
        ``|x|^2 - |U_c' x|^2 - 2 x' r_c + |r_c|^2``: all classes take one product with a matrix.
        """
        along = np.einsum("mkd,md->mk", self.directions, self.means)
        beyond = self.means - np.einsum("mk,mkd->md", along, self.directions)
        rows = np.concatenate([self.directions.reshape(-1, self.means.shape[1]), beyond])
        return np.ascontiguousarray(rows.T), np.square(beyond).sum(axis=1)

    def _log_distances(self, inputs: Floats) -> Floats:
        """Return the (N,) values of ``log d`` of (N, D) inputs."""
        matrix, squares = self._projection
        classes, directions, _ = self.directions.shape
        products = inputs @ matrix
        along = products[:, : classes * directions].reshape(-1, classes, directions)
        beyond = np.einsum("nd,nd->n", inputs, inputs)[:, np.newaxis] + squares
        beyond -= np.einsum("nmk,nmk->nm", along, along)
        beyond -= 2 * products[:, classes * directions :]
        distances = np.maximum((beyond / self.variances).min(axis=1), _MIN_DISTANCE)
        logarithms: Floats = np.log(distances)
        return logarithms


def fit_detector(
    images: npt.NDArray[Any],
    labels: npt.NDArray[np.integer[Any]],
    held_out: tuple[npt.NDArray[Any], FloatArray],
    spec: InputSpec,
    rng: np.random.Generator,
) -> OodDetector | None:
    """Return the detector of a network; None where there are too few images to fit one to.

    Args:
        images: (N, ...) images that the network learned from, as it takes them.
        labels: (N,) their classes.
        held_out: (H, ...) other images, and the (H, K) probabilities that the network gives them.
        spec: What the network takes.
        rng: What the search for directions begins with.
    """
    classes = [images[labels == label] for label in np.unique(labels)]
    classes = [members for members in classes if len(members) >= _MIN_IMAGES]
    if not classes or len(held_out[0]) < _MIN_HELD_OUT:
        return None
    count = max(1, min(_DIRECTIONS, _MAX_DIRECTIONS // len(classes)))
    # Beyond a flat there must be something left.
    count = min(count, max(1, spec.values_per_image // 2), *(len(each) - 2 for each in classes))
    means, directions, variances = zip(
        *(_flat(spec.scale(members), count, rng) for members in classes), strict=True
    )
    made = np.stack(means), np.stack(directions), np.array(variances, np.float32)
    unscaled = OodDetector(*made, 0.0, 1.0, 0.0, 1.0, 0.0)
    return _calibrated(unscaled, held_out, spec)


def _flat(inputs: Floats, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Return the mean of (N, D) inputs, their first principal components, and what is beyond.

    The components are found by orthogonal iteration, which takes a few products with the inputs
    where a full decomposition of D x D would take most of the time of a short training.
    Source: Halko et al., Finding structure with randomness (2011), algorithm 4.4.
    """
    mean = inputs.mean(axis=0)
    centred = inputs - mean
    found = rng.standard_normal(
        (inputs.shape[1], min(count + _OVERSAMPLING, *inputs.shape)), np.float32
    )
    for _ in range(_ROUNDS):
        found = np.linalg.qr(centred.T @ (centred @ found))[0]
    rotation = np.linalg.svd(centred @ found, full_matrices=False)[2]
    directions = np.ascontiguousarray(rotation[:count] @ found.T)
    beyond = np.square(centred).sum() - np.square(centred @ directions.T).sum()
    return mean, directions, max(float(beyond) / len(inputs), 2 * _MIN_VARIANCE)


def _calibrated(
    detector: OodDetector, held_out: tuple[npt.NDArray[Any], FloatArray], spec: InputSpec
) -> OodDetector:
    """Return a detector with the means, standard deviations and threshold of held-out images."""
    distances, doubts = detector.parts(*held_out, spec)
    calibrated = replace(
        detector,
        distance_mean=float(distances.mean(dtype=np.float64)),
        distance_std=max(float(distances.std(dtype=np.float64)), _MIN_STD),
        doubt_mean=float(doubts.mean(dtype=np.float64)),
        doubt_std=max(float(doubts.std(dtype=np.float64)), _MIN_STD),
    )
    scores = calibrated.scores(*held_out, spec)
    threshold = np.float32(np.quantile(scores, 1 - _ALARM_SHARE))
    return replace(calibrated, threshold=float(threshold))


def read_detector(arrays: Mapping[str, npt.NDArray[Any]]) -> OodDetector | None:
    """Return the detector in the entries of a weights file; None in those of earlier releases.

    Raises:
        WeightsFileError: An entry is missing, or is not what it should be.
    """
    names = (*_ARRAYS, _CALIBRATION)
    present = [name for name in names if name in arrays]
    if not present:
        return None
    if len(present) < len(names):
        raise WeightsFileError(
            f"entries: expected all of {', '.join(names)} or none, got only {', '.join(present)}"
        )
    calibration = arrays[_CALIBRATION]
    expected = (len(fields(OodDetector)) - len(_ARRAYS),)
    if calibration.dtype != np.float64 or calibration.shape != expected:
        raise WeightsFileError(
            f"{_CALIBRATION}: expected float64 {expected}, got {calibration.dtype} "
            f"{calibration.shape}"
        )
    means, directions, variances = (np.asarray(arrays[name], order="C") for name in _ARRAYS)
    return OodDetector(means, directions, variances, *calibration.tolist())


def _check(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], largest: float) -> None:
    if array.dtype != np.float32 or array.shape != shape or 0 in shape:
        raise WeightsFileError(
            f"{name}: expected float32 {shape}, each at least 1, got {array.dtype} {array.shape}"
        )
    magnitude = np.abs(array).max()
    # Written so that a NaN, which compares false, is refused as well.
    if not (magnitude <= largest and np.isfinite(magnitude)):
        raise WeightsFileError(
            f"{name}: expected finite values of at most {largest:g}, got {magnitude:.3g}"
        )
