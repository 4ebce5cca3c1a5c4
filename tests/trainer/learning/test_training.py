from dataclasses import replace

import numpy as np
import pytest

from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.backprop import Labels
from mlpserve.trainer.learning.training import EpochReport, initial_network, train
from mlpserve.trainer.recipes import FAST, SEED, Recipe

SMALL = replace(FAST, hidden_sizes=(32,), epochs=100, batch_size=4, learning_rate=0.03)


def ten_images() -> tuple[np.typing.NDArray[np.float32], Labels]:
    rng = np.random.default_rng(6)
    return rng.random((10, 16), np.float32), np.arange(10) % 5


def trained(recipe: Recipe) -> tuple[Network, list[EpochReport]]:
    inputs, labels = ten_images()
    reports: list[EpochReport] = []
    network = initial_network(recipe, input_size=16, class_count=5)
    return train(network, inputs, labels, recipe, reports.append), reports


def test_ten_images_are_learned_by_heart() -> None:
    network, reports = trained(SMALL)
    inputs, labels = ten_images()
    assert (network.probabilities(inputs).argmax(axis=1) == labels).all()
    assert reports[0].loss > 1
    assert reports[-1].loss < 0.05
    assert len(reports) == SMALL.epochs


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first, again, other = (trained(replace(SMALL, seed=seed))[0] for seed in (1, 1, 2))
    for one, two in zip(first.parameters, again.parameters, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first.parameters[0], other.parameters[0])


def test_the_network_to_begin_with_is_not_changed() -> None:
    inputs, labels = ten_images()
    network = initial_network(SMALL, input_size=16, class_count=5)
    before = [array.copy() for array in network.parameters]
    train(network, inputs, labels, SMALL, lambda _: None)
    for array, old in zip(network.parameters, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_every_image_is_seen_once_an_epoch_also_in_a_last_short_batch() -> None:
    # With a learning rate of almost 0 nothing is learned, so each epoch finds the same.
    recipe = replace(SMALL, learning_rate=1e-12, batch_size=4, epochs=3)
    _, reports = trained(recipe)
    inputs, labels = ten_images()
    network = initial_network(recipe, input_size=16, class_count=5)
    expected = (network.probabilities(inputs).argmax(axis=1) == labels).mean()
    for report in reports:
        assert report.accuracy == pytest.approx(expected)
        assert report.loss == pytest.approx(reports[0].loss, rel=1e-5)


def test_a_report_of_the_full_batch_is_of_before_the_update() -> None:
    _, reports = trained(replace(SEED, hidden_sizes=(4,), epochs=1))
    # All weights are small, so all five classes are about equally probable: ln 5.
    assert reports[0].loss == pytest.approx(np.log(5), rel=0.05)


def test_a_diverging_loss_stops_the_training_and_says_what_to_try() -> None:
    recipe = replace(SEED, hidden_sizes=(4,), activation="relu", learning_rate=1e200, epochs=50)
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="lower --learning-rate"):
        trained(recipe)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("hidden_sizes", (0,), "layers: expected widths from 1 to 65536"),
        ("activation", "swish", "activation: expected tanh, relu, sigmoid, got 'swish'"),
        ("learning_rate", 0.0, "learning rate: expected above 0"),
        ("learning_rate", float("nan"), "learning rate: expected above 0"),
        ("epochs", 0, "epochs: expected at least 1"),
        ("batch_size", -1, "batch size: expected at least 1"),
        ("seed", -1, "seed: expected from 0"),
        ("seed", 2**32, "seed: expected from 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(
    setting: str, value: object, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        replace(FAST, **{setting: value})  # type: ignore[arg-type]
