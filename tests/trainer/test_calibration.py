import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.datasets import Split
from mlpserve.model.activations import softmax
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Layer, Network
from mlpserve.trainer import calibration as module
from mlpserve.trainer.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    calibrate,
    fit_temperature,
    logits,
    with_temperature,
    without_temperature,
)
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.evaluation import Evaluation, evaluate
from mlpserve.trainer.learning.backprop import Labels
from mlpserve.trainer.learning.initialization import he
from mlpserve.trainer.reliability import expected_calibration_error

SPEC = InputSpec((3, 4))


def honest_logits(
    count: int, classes: int, seed: int = 1
) -> tuple[npt.NDArray[np.float64], Labels]:
    """Return logits, and labels drawn with just the probabilities that the logits stand for."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(0, 2, (count, classes))
    thresholds = softmax(drawn).cumsum(axis=1)
    labels = (rng.random((count, 1)) > thresholds[:, :-1]).sum(axis=1)
    return drawn, labels.astype(np.int64)


def cross_entropy(logits: npt.NDArray[np.float64], labels: Labels, temperature: float) -> float:
    divided = logits / temperature
    of_truth = divided[np.arange(len(labels)), labels]
    return float((np.logaddexp.reduce(divided, axis=1) - of_truth).mean())


def random_split(count: int, seed: int = 5) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (count, 3, 4), np.uint8), rng.integers(0, 5, count))


def boastful(sureness: float = 8.0) -> tuple[Network, Split, Split]:
    """Return a network that is ``sureness`` times surer than it should be, and two splits of data.

    The labels are drawn with the probabilities of the same network before it was made surer.
    """
    network = he((12, 9, 5), "tanh", seed=3)
    network = network.with_parameters([2 * array for array in network.parameters])
    images = random_split(8000).images
    thresholds = network.probabilities(SPEC.scale(images, np.float64)).cumsum(axis=1)
    drawn = np.random.default_rng(6).random((8000, 1))
    labels = (drawn > thresholds[:, :-1]).sum(axis=1).astype(np.int64)
    halves = (slice(4000), slice(4000, None))
    validation, test = (Split(images[half], labels[half]) for half in halves)
    return with_temperature(network, 1 / sureness).astype(np.float32), validation, test


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0, 12.0])
def test_the_temperature_of_scaled_logits_is_found(temperature: float) -> None:
    honest, labels = honest_logits(20_000, 5)
    own = fit_temperature(honest, labels)
    assert own == pytest.approx(1, abs=0.03)  # what the labels, drawn at random, leave open
    assert fit_temperature(temperature * honest, labels) == pytest.approx(
        temperature * own, rel=1e-6
    )


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 6), sureness=st.floats(0.05, 20))
def test_no_other_temperature_gives_a_lower_cross_entropy(
    seed: int, classes: int, sureness: float
) -> None:
    honest, labels = honest_logits(30, classes, seed)
    if (honest.argmax(axis=1) == labels).all():
        return
    surer = sureness * honest
    fitted = fit_temperature(surer, labels)
    best = cross_entropy(surer, labels, fitted)
    for other in (0.99 * fitted, 1.01 * fitted, MIN_TEMPERATURE, 1.0, MAX_TEMPERATURE):
        if MIN_TEMPERATURE <= other <= MAX_TEMPERATURE:
            assert best <= cross_entropy(surer, labels, other) + 1e-12


def test_a_constant_added_to_all_logits_of_an_image_changes_nothing() -> None:
    honest, labels = honest_logits(200, 3)
    moved = honest + np.linspace(-1e4, 1e4, 200)[:, np.newaxis]
    assert fit_temperature(moved, labels) == pytest.approx(
        fit_temperature(honest, labels), rel=1e-6
    )


def test_an_overconfident_network_gets_a_temperature_above_1_and_a_smaller_error() -> None:
    network, validation, test = boastful(sureness=8)
    calibrated, calibration = calibrate(network, SPEC, validation=validation, test=test)
    assert calibration.temperature == pytest.approx(8, rel=0.1)
    assert calibration.expected_calibration_error_before > 0.2
    assert calibration.expected_calibration_error_after < 0.03
    before, after = (evaluate(each, SPEC, test) for each in (network, calibrated))
    assert calibration.expected_calibration_error_before == expected_calibration_error(before)
    assert calibration.expected_calibration_error_after == expected_calibration_error(after)
    np.testing.assert_array_equal(after.predicted, before.predicted)
    assert after.cross_entropy < before.cross_entropy


def test_of_very_many_images_every_so_many_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    network, validation, test = boastful()
    _, all_of_them = calibrate(network, SPEC, validation=validation, test=test)
    monkeypatch.setattr(module, "_MAX_LOGITS", 2000 * 5)
    _, half = calibrate(network, SPEC, validation=validation, test=test)
    expected = validation.select(np.arange(0, 4000, 2))
    assert half.temperature == fit_temperature(logits(network, SPEC, expected), expected.labels)
    assert half.temperature == pytest.approx(all_of_them.temperature, rel=0.1)


def test_a_modest_network_gets_a_temperature_below_1() -> None:
    network, validation, test = boastful(sureness=0.3)
    _, calibration = calibrate(network, SPEC, validation=validation, test=test)
    assert calibration.temperature == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize(
    ("rows", "labels", "expected"),
    [
        ([[2.0, 1.0], [0.0, 9.0]], [0, 1], 1.0),
        ([[1.0, 1.0], [3.0, 3.0]], [0, 1], 1.0),
        ([[4.0]], [0], 1.0),
        ([[9.0, 0.0]], [1], MAX_TEMPERATURE),
        ([[1e30, 0.0], [1e30, 0.0]], [0, 1], MAX_TEMPERATURE),
        ([[1e-6, 0.0]] * 9 + [[0.0, 1e-6]], [0] * 10, MIN_TEMPERATURE),
    ],
    ids=["all right", "all undecided", "one class", "all wrong", "huge", "tiny"],
)
def test_where_the_best_temperature_is_out_of_all_bounds_a_sane_one_is_given(
    rows: list[list[float]], labels: list[int], expected: float
) -> None:
    assert fit_temperature(np.array(rows), np.array(labels)) == expected


def test_logits_are_what_the_probabilities_are_the_softmax_of() -> None:
    network, split = he((12, 9, 5), "relu", seed=1).astype(np.float32), random_split(1500)
    sums = logits(network, SPEC, split)
    assert sums.shape == (1500, 5)
    np.testing.assert_allclose(
        softmax(sums), network.probabilities(SPEC.scale(split.images)), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("hidden", [(), (9,)], ids=["no hidden layer", "one hidden layer"])
def test_a_temperature_divides_the_logits_and_nothing_else(hidden: tuple[int, ...]) -> None:
    network, split = he((12, *hidden, 5), "sigmoid", seed=1), random_split(50)
    divided = with_temperature(network, 2.5)
    np.testing.assert_allclose(logits(divided, SPEC, split), logits(network, SPEC, split) / 2.5)
    assert divided.activations == network.activations
    assert all(array.dtype == np.float64 for array in divided.parameters)
    for layer, other in zip(divided.layers[:-1], network.layers[:-1], strict=True):
        assert layer is other


@given(seed=st.integers(0, 2**32), temperature=st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE))
def test_the_most_probable_class_stays_unless_two_are_equal_to_within_rounding(
    seed: int, temperature: float
) -> None:
    # Float32 rounds each logit by about 1e-7 of the sums in it, and the order of two logits can
    # turn only where they are closer than that; their probabilities then are equal to 1e-5.
    network = he((12, 9, 5), "relu", seed).astype(np.float32)
    before = evaluate(network, SPEC, random_split(300))
    after = evaluate(with_temperature(network, temperature), SPEC, random_split(300))
    rows = np.arange(300)
    lost = before.confidences - before.probabilities[rows, after.predicted]
    assert lost.max() < 1e-5
    assert np.count_nonzero(lost) <= 1


def test_classes_that_are_always_equal_stay_equal_and_the_first_is_taken() -> None:
    # Sums of such numbers are exact, in whichever order a BLAS adds up; of others they are not, and
    # some add up the last of five columns in another order than the first four.
    weights, bias = np.full((12, 5), 0.25, np.float32), np.full(5, 0.5, np.float32)
    network = Network((Layer(weights, bias, "softmax"),))
    split = random_split(100)
    black_and_white = Split(np.where(split.images < 128, 0, 255).astype(np.uint8), split.labels)
    evaluation = evaluate(with_temperature(network, 2.0), SPEC, black_and_white)
    assert set(evaluation.predicted.tolist()) == {0}


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 4.0])
def test_what_was_said_without_the_temperature_can_be_told_from_what_is_said_with_it(
    temperature: float,
) -> None:
    network, split = he((12, 9, 5), "relu", seed=2), random_split(300)
    with_it = evaluate(with_temperature(network, temperature), SPEC, split)
    expected = evaluate(network, SPEC, split)
    actual = without_temperature(with_it, temperature)
    np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(actual.labels, expected.labels)


def test_a_probability_of_0_stays_0_without_a_temperature() -> None:
    surely = Evaluation(np.array([[1, 0]], np.float32), np.array([0]))
    assert without_temperature(surely, 3.0).probabilities.tolist() == [[1, 0]]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(TrainingError, match="temperature: expected above 0"):
        with_temperature(he((2, 2), "relu", seed=0), temperature)
