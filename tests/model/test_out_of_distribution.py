"""The out-of-distribution score: what it is, what it tells apart, and how it is kept."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.errors import WeightsFileError
from mlpserve.model.inputs import InputSpec, ValueRange
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Network
from mlpserve.model.out_of_distribution import OodDetector, fit_detector
from mlpserve.model.versions import load_version, publish
from mlpserve.model.weights import Model, load_model, model_arrays, save_model

SPEC = InputSpec((4, 5))
CLASSES = 3


class Shapes:
    """Images of three classes, each a flat of two directions and some noise."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self._means = rng.integers(60, 190, (CLASSES, 20))
        self._directions = rng.normal(0, 15, (CLASSES, 2, 20))
        self._rng = rng

    def draw(self, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        labels = self._rng.integers(0, CLASSES, count)
        along = self._rng.normal(size=(count, 1, 2))
        values = self._means[labels] + (along @ self._directions[labels])[:, 0]
        values += self._rng.normal(0, 4, values.shape)
        return np.clip(values, 0, 255).astype(np.uint8).reshape(count, 4, 5), labels


def sure(count: int) -> npt.NDArray[np.float32]:
    """Return answers of a network that is about as sure of each image."""
    best = np.random.default_rng(count).uniform(0.9, 0.99, (count, 1))
    rest = (1 - best) / (CLASSES - 1)
    return np.hstack([best, rest, rest]).astype(np.float32)


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return Shapes()


@pytest.fixture(scope="module")
def fitted(shapes: Shapes) -> OodDetector:
    found = fit_detector(
        *shapes.draw(600), (shapes.draw(1000)[0], sure(1000)), SPEC, np.random.default_rng(0)
    )
    assert found is not None
    return found


def test_the_score_is_its_formula(fitted: OodDetector, shapes: Shapes) -> None:
    images, _ = shapes.draw(50)
    probabilities = sure(50)
    inputs = images.reshape(50, 20) / 255
    nearest = np.full(50, np.inf)
    for mean, directions, variance in zip(
        fitted.means, fitted.directions, fitted.variances, strict=True
    ):
        beyond = (np.eye(20) - directions.T.astype(float) @ directions) @ (inputs - mean).T
        nearest = np.minimum(nearest, np.square(beyond).sum(axis=0) / variance)
    best = probabilities.max(axis=1).astype(float)
    expected = np.abs(np.log(nearest) - fitted.distance_mean) / fitted.distance_std
    expected += np.maximum((np.log((1 - best) / best) - fitted.doubt_mean) / fitted.doubt_std, -1)
    found = fitted.scores(images, probabilities, SPEC)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_directions_are_the_principal_components(fitted: OodDetector, shapes: Shapes) -> None:
    images, labels = Shapes().draw(600)
    inputs = SPEC.scale(images)
    for label, (mean, directions) in enumerate(zip(fitted.means, fitted.directions, strict=True)):
        members = inputs[labels == label]
        np.testing.assert_allclose(mean, members.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-5)
        exact = np.linalg.svd(members - mean)[2][:2]
        # The first two are those in which the class differs; each may point either way.
        np.testing.assert_allclose(np.abs(directions[:2] @ exact.T), np.eye(2), atol=0.02)


def test_one_in_a_hundred_of_what_was_learned_is_beyond_the_threshold(
    fitted: OodDetector, shapes: Shapes
) -> None:
    images, _ = shapes.draw(20_000)
    beyond = fitted.scores(images, sure(20_000), SPEC) > fitted.threshold
    assert 0.003 < beyond.mean() < 0.03


@pytest.mark.parametrize(
    "strange",
    [
        np.zeros((1, 4, 5), np.uint8),
        np.full((1, 4, 5), 255, np.uint8),
        np.full((1, 4, 5), 128, np.uint8),
        np.random.default_rng(1).integers(0, 256, (1, 4, 5), np.uint8),
    ],
    ids=["black", "white", "grey", "noise"],
)
def test_what_is_of_no_class_is_beyond_it(
    fitted: OodDetector, strange: npt.NDArray[np.uint8]
) -> None:
    assert fitted.scores(strange, sure(1), SPEC)[0] > fitted.threshold


def test_no_certainty_makes_up_for_much_oddness(fitted: OodDetector) -> None:
    black, certain = np.zeros((1, 4, 5), np.uint8), np.eye(CLASSES, dtype=np.float32)[:1]
    found = (fitted.scores(black, each, SPEC)[0] for each in (certain, sure(1)))
    lower, higher = found
    assert lower > fitted.threshold
    assert higher - lower < 3


def test_a_network_in_doubt_makes_an_image_stranger(fitted: OodDetector, shapes: Shapes) -> None:
    images, _ = shapes.draw(5)
    doubtful = np.full((5, CLASSES), 1 / CLASSES, np.float32)
    certain = np.eye(CLASSES, dtype=np.float32)[[0] * 5]
    low, high = (fitted.scores(images, each, SPEC) for each in (certain, doubtful))
    assert np.isfinite(low).all()
    assert (high > low).all()


def test_the_same_seed_gives_the_same_detector_to_the_bit() -> None:
    def fit() -> OodDetector | None:
        shapes = Shapes()
        rng = np.random.default_rng(5)
        return fit_detector(*shapes.draw(90), (shapes.draw(40)[0], sure(40)), SPEC, rng)

    first, second = fit(), fit()
    assert first is not None
    assert second is not None
    for name, array in first.to_arrays().items():
        np.testing.assert_array_equal(array, second.to_arrays()[name])


def test_bytes_shares_and_values_of_a_range_of_their_own_score_alike(
    fitted: OodDetector, shapes: Shapes
) -> None:
    images, _ = shapes.draw(700)  # more than are computed at once
    probabilities = sure(700)
    ranged = InputSpec((4, 5), value_range=ValueRange(-1, 1))
    of_bytes = fitted.scores(images, probabilities, SPEC)
    shares = (images / 255).astype(np.float32)
    np.testing.assert_allclose(fitted.scores(shares, probabilities, SPEC), of_bytes, atol=1e-3)
    found = fitted.scores(2 * shares - 1, probabilities, ranged)
    np.testing.assert_allclose(found, of_bytes, atol=1e-2)


def test_too_few_images_give_no_detector(shapes: Shapes) -> None:
    rng = np.random.default_rng(0)
    images, labels = shapes.draw(90)
    held_out = shapes.draw(30)[0], sure(30)
    few = shapes.draw(19)[0], sure(19)
    assert fit_detector(images, labels, few, SPEC, rng) is None
    assert fit_detector(images[:6], np.arange(6), held_out, SPEC, rng) is None
    # A class of one image is left out; the others have what they need.
    labels[0] = 7
    found = fit_detector(images, labels, held_out, SPEC, rng)
    assert found is not None
    assert len(found.means) == CLASSES


def test_images_that_are_all_alike_are_no_division_by_nothing(shapes: Shapes) -> None:
    images = np.repeat(shapes.draw(1)[0], 60, axis=0)
    labels = np.arange(60) % CLASSES
    held_out = images[:30], sure(30)
    found = fit_detector(images, labels, held_out, SPEC, np.random.default_rng(0))
    assert found is not None
    assert np.isfinite(found.scores(images, sure(60), SPEC)).all()


@pytest.fixture
def detector(scored_model: Model) -> OodDetector:
    """Return a detector for the tiny model."""
    assert scored_model.detector is not None
    return scored_model.detector


def test_it_is_published_with_its_version(
    models: Path, model: Model, detector: OodDetector
) -> None:
    publish(models, replace(model, detector=detector))
    loaded = load_version(models, "tiny", 1).detector
    assert loaded is not None
    for name, array in detector.to_arrays().items():
        np.testing.assert_array_equal(loaded.to_arrays()[name], array)
    assert (loaded.threshold, loaded.test_share) == (detector.threshold, 0.25)


def test_a_file_of_an_earlier_release_has_none(tmp_path: Path, model: Model) -> None:
    save_model(tmp_path / "weights.npz", model)
    assert load_model(tmp_path / "weights.npz").detector is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ood_means": None}, "expected all of ood_means, ood_directions"),
        ({"ood_means": np.zeros((3, 6))}, "ood_means: expected float32"),
        ({"ood_means": np.zeros((3, 5), np.float32)}, "ood_directions: expected float32 (3, "),
        ({"ood_means": np.full((3, 6), np.nan, np.float32)}, "ood_means: expected finite"),
        ({"ood_means": np.full((3, 6), 2, np.float32)}, "of at most 1.001, got 2"),
        ({"ood_means": np.float32(0)}, "ood_means: expected float32"),
        ({"ood_means": np.zeros((0, 6), np.float32)}, "ood_means: expected float32"),
        ({"ood_directions": np.zeros((3, 6), np.float32)}, "ood_directions: expected float32"),
        ({"ood_directions": np.full((3, 1, 6), np.inf, np.float32)}, "expected finite"),
        ({"ood_variances": np.zeros(3, np.float32)}, "ood_variances: expected at least"),
        ({"ood_variances": np.ones(2, np.float32)}, "ood_variances: expected float32 (3,)"),
        ({"ood_calibration": np.zeros(5)}, "ood_calibration: expected float64 (6,)"),
        ({"ood_calibration": np.zeros(6, np.float32)}, "ood_calibration: expected float64"),
        ({"ood_calibration": np.zeros(6)}, "standard deviations above 0"),
        ({"ood_calibration": np.array([0, 1, 0, 1, np.nan, 0])}, "expected finite values"),
        ({"ood_calibration": np.array([0, 1, 0, 1, 1, 1.5])}, "test_share: expected 0 to 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_entries_that_are_damaged_are_refused(
    tmp_path: Path,
    model: Model,
    detector: OodDetector,
    changes: dict[str, npt.NDArray[Any] | None],
    message: str,
) -> None:
    arrays = {**model_arrays(replace(model, detector=detector)), **changes}
    arrays["metadata"] = np.array(model.metadata.to_json())
    kept: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **kept)
    (tmp_path / "weights.npz").write_bytes(file.getvalue())
    with pytest.raises(WeightsFileError) as caught:
        load_model(tmp_path / "weights.npz")
    assert message in str(caught.value)


def test_a_detector_of_other_images_is_refused(
    network: Network, metadata: Metadata, fitted: OodDetector
) -> None:
    with pytest.raises(WeightsFileError, match="ood_means: expected 6 values an image, got 20"):
        Model(network, metadata, detector=fitted)
