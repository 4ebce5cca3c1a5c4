import numpy as np
import pytest

from mlpserve.trainer.learning.averaging import MovingAverage


def test_two_steps_worked_by_hand() -> None:
    # d = t / (t + 9), so 1/10 and 2/11, of which the second is above the decay of 0.15.
    # Step 1: 0 + 9/10 (10 - 0) = 9      Step 2: 9 + 0.85 (-1 - 9) = 0.5
    parameters = np.zeros(1)
    average = MovingAverage(parameters, decay=0.15)
    parameters[0] = 10
    average.update(slice(0, 1), 1)
    np.testing.assert_allclose(average.mean, [9])
    parameters[0] = -1
    average.update(slice(0, 1), 2)
    np.testing.assert_allclose(average.mean, [0.5])


def test_where_the_training_began_is_soon_forgotten_whatever_the_decay() -> None:
    parameters = np.zeros(3)
    average = MovingAverage(parameters, decay=0.9999)
    parameters += 1
    for step in range(1, 31):
        average.update(slice(0, 3), step)
    np.testing.assert_allclose(average.mean, 1, atol=1e-6)


def test_the_mean_of_a_walk_around_a_place_is_nearer_to_it_than_the_walk() -> None:
    rng = np.random.default_rng(1)
    parameters = np.full(1000, 5.0)
    average = MovingAverage(parameters, decay=0.99)
    for step in range(1, 1501):
        parameters[:] = rng.normal(0, 1, 1000)
        average.update(slice(0, 1000), step)
    # Fading weights of decay d leave (1 - d) / (1 + d) of the variance.
    assert average.mean.std() == pytest.approx(np.sqrt(0.01 / 1.99), rel=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updating_in_parts_gives_the_same_bits_and_keeps_the_dtype(
    dtype: type[np.floating],
) -> None:
    rng = np.random.default_rng(1)
    parameters = np.zeros(140_000, dtype)  # some blocks
    whole, parts = MovingAverage(parameters, 0.9), MovingAverage(parameters, 0.9)
    for step in range(1, 4):
        parameters += rng.normal(size=140_000).astype(dtype)
        whole.update(slice(0, 140_000), step)
        for part in (slice(70_001, 140_000), slice(0, 70_001)):
            parts.update(part, step)
    assert whole.mean.dtype == dtype
    np.testing.assert_array_equal(parts.mean, whole.mean)


def test_the_parameters_are_not_changed() -> None:
    parameters = np.ones(3)
    average = MovingAverage(parameters, 0.9)
    average.update(slice(0, 3), 1)
    average.mean[:] = 7
    assert (parameters == 1).all()
