from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.datasets import Split
from mlpserve.datasets.dataset import Images
from mlpserve.datasets.disk_images import DiskImages
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.parameters import vector_of
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.shuffling import Sizes
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.learning.warps import WarpSettings
from mlpserve.trainer.recipes import FAST, SEED

CLASSES = 5
SPEC = InputSpec((4, 4))
SMALL = replace(
    FAST, hidden_sizes=(32,), epochs=100, batch_size=4, learning_rate=0.03, validation_share=0
)
# 24 images in batches of 5 are 5 steps an epoch, the last a short one.
SHORT = replace(SMALL, hidden_sizes=(9, 7), epochs=3, batch_size=5)
# So wide that pixels that are 0 in a whole batch are left out.
WIDE = replace(SHORT, hidden_sizes=(64,))
EVERYTHING = replace(
    SHORT,
    weight_decay=0.01,
    label_smoothing=0.1,
    dropout=0.2,
    average_decay=0.9,
    learned_probability=0.9,
    warp=WarpSettings(rotation_degrees=10, shift_px=0.5, elastic_px=0.3, images_per_warp=3),
    gentle_share=0.4,
)


def images(count: int, shape: tuple[int, ...] = SPEC.shape) -> Split:
    pixels = np.random.default_rng(6).integers(0, 256, (count, *shape), np.uint8)
    pixels[:, 0] = 0  # as the border of MNIST's images is
    return Split(pixels, np.arange(count) % CLASSES)


def start(recipe: Recipe, pool: ThreadPool, count: int = 10) -> Training:
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    return Training(recipe, network, images(count), SPEC, pool=pool)


def finish(training: Training) -> Training:
    while training.position.steps < training.steps:
        training.step()
    return training


def trained(recipe: Recipe, *, threads: int = 1, count: int = 10) -> Network:
    with ThreadPool(threads) as pool:
        return finish(start(recipe, pool, count)).network


def assert_same_bits(one: Network, other: Network) -> None:
    assert one.activations == other.activations
    np.testing.assert_array_equal(vector_of(one), vector_of(other), strict=True)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "gradient-descent"])
def test_ten_images_are_learned_by_heart(optimizer: str) -> None:
    rate = {"adam": 0.03, "momentum": 0.03, "gradient-descent": 0.3}[optimizer]
    training = start(replace(SMALL, optimizer=optimizer, learning_rate=rate), ThreadPool(1))
    finish(training)
    ten = images(10)
    found = training.network.probabilities(SPEC.scale(ten.images)).argmax(axis=1)
    np.testing.assert_array_equal(found, ten.labels)
    assert training.position.correct == training.position.images == 10
    assert training.position.loss_sum / 10 < 0.05


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("recipe", [SHORT, WIDE, EVERYTHING], ids=["plain", "wide", "everything"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    recipe: Recipe, threads: int
) -> None:
    first, again, other = (
        trained(replace(recipe, seed=seed), threads=threads, count=24) for seed in (1, 1, 2)
    )
    assert_same_bits(first, again)
    assert not np.array_equal(vector_of(first), vector_of(other))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", [Sizes(), Sizes(whole=0, window=16 * 15, block=16 * 3)])
@pytest.mark.parametrize(
    "recipe",
    [SHORT, WIDE, EVERYTHING, replace(SHORT, batch_size=0)],
    ids=["plain", "wide", "everything", "whole"],
)
def test_images_on_disk_give_the_bits_of_the_same_images_in_memory(
    recipe: Recipe, sizes: Sizes, threads: int, tmp_path: Path
) -> None:
    in_memory = images(47)
    (tmp_path / "images").write_bytes(in_memory.images.tobytes())
    stored = DiskImages(tmp_path / "images", offset=0, shape=in_memory.images.shape, dtype=np.uint8)
    on_disk = Split(cast("Images", stored), in_memory.labels)
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    with ThreadPool(threads) as pool:
        one, other = (
            finish(Training(recipe, network, split, SPEC, pool=pool, sizes=sizes)).network
            for split in (in_memory, on_disk)
        )
    assert_same_bits(one, other)


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("recipe", [SHORT, WIDE], ids=["plain", "wide"])
def test_threads_change_no_more_than_the_rounding(recipe: Recipe, threads: int) -> None:
    # More threads than the last batch has images: some of them get nothing.
    recipe = replace(recipe, dtype="float64")
    alone = vector_of(trained(recipe, count=24))
    shared = vector_of(trained(recipe, threads=threads, count=24))
    np.testing.assert_allclose(shared, alone, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("average_decay", [0, 0.9])
def test_the_network_to_begin_with_is_not_changed_nor_is_one_that_was_given_out(
    average_decay: float,
) -> None:
    recipe = replace(SMALL, epochs=2, average_decay=average_decay)
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    before = vector_of(network)
    training = Training(recipe, network, images(10), SPEC, pool=ThreadPool(1))
    given_out = training.network
    finish(training)
    np.testing.assert_array_equal(vector_of(network), before)
    np.testing.assert_array_equal(vector_of(given_out), before)
    assert not np.array_equal(vector_of(training.network), before)


@given(
    stops=st.lists(st.integers(0, 15), min_size=1, max_size=3),
    threads=st.sampled_from([1, 2]),
    optimizer=st.sampled_from(["adam", "momentum", "gradient-descent"]),
)
@settings(max_examples=40)
@pytest.mark.parametrize("recipe", [SHORT, WIDE, EVERYTHING], ids=["plain", "wide", "everything"])
def test_a_training_that_was_stopped_anywhere_ends_with_the_bits_of_one_that_was_not(
    recipe: Recipe, stops: list[int], threads: int, optimizer: str
) -> None:
    recipe = replace(recipe, optimizer=optimizer)
    with ThreadPool(threads) as pool:
        expected = finish(start(recipe, pool, count=24))
        training = start(recipe, pool, count=24)
        for stop in sorted(stops):
            while training.position.steps < stop:
                training.step()
            state = {name: array.copy() for name, array in training.state().items()}
            position, training = training.position, start(recipe, pool, count=24)
            training.restore(state, position)
        finish(training)
    assert_same_bits(training.network, expected.network)
    assert training.position == expected.position


def test_a_training_can_go_back_to_where_it_was() -> None:
    training = start(EVERYTHING, ThreadPool(1), count=24)
    for _ in range(7):
        training.step()
    state = {name: array.copy() for name, array in training.state().items()}
    position = training.position
    first = finish(training).network
    training.restore(state, position)
    assert_same_bits(finish(training).network, first)


def test_what_is_restored_is_copied() -> None:
    training = start(EVERYTHING, ThreadPool(1), count=24)
    state = {name: array.copy() for name, array in training.state().items()}
    training.restore(state, training.position)
    finish(training)
    for name, array in start(EVERYTHING, ThreadPool(1), count=24).state().items():
        np.testing.assert_array_equal(state[name], array)


def test_the_position_counts_the_images_of_the_epoch_and_their_losses() -> None:
    # With a learning rate of almost 0 nothing is learned, so each epoch finds the same.
    training = start(replace(SHORT, learning_rate=1e-12), ThreadPool(1), count=24)
    network, all_images = training.network, images(24)
    probabilities = network.probabilities(SPEC.scale(all_images.images))
    losses = -np.log(probabilities[np.arange(24), all_images.labels])
    assert training.steps == 15
    for step in range(15):
        assert training.epoch == step // 5
        assert training.is_between_epochs == (step % 5 == 0)
        training.step()
        assert training.position.steps == step + 1
        assert training.position.images == (
            24 if training.is_between_epochs else 5 * (step % 5 + 1)
        )
        if training.is_between_epochs:
            assert training.position.loss_sum == pytest.approx(losses.sum(), rel=1e-5)
            right = np.count_nonzero(probabilities.argmax(axis=1) == all_images.labels)
            assert training.position.correct == right


def test_the_learning_rate_is_the_schedules_share_of_the_peak() -> None:
    training = start(replace(SMALL, schedule="one-cycle", epochs=10), ThreadPool(1))
    assert training.steps == 30
    assert training.learning_rate(0) == pytest.approx(0.04 * 0.03)
    assert training.learning_rate(9) == 0.03
    assert training.learning_rate(29) < 0.001 * 0.3


def test_a_step_of_all_images_is_gradient_descent_with_their_mean_gradient() -> None:
    recipe = replace(SEED, hidden_sizes=(), learning_rate=0.5, epochs=1, batch_size=0)
    training = start(recipe, ThreadPool(1))
    before, ten = training.network, images(10)
    inputs = SPEC.scale(ten.images, np.float64)
    deltas = before.probabilities(inputs) - np.eye(CLASSES)[ten.labels]
    training.step()
    weights, bias = training.network.parameters
    np.testing.assert_allclose(
        weights, before.parameters[0] - 0.5 * inputs.T @ deltas / 10, rtol=1e-12
    )
    np.testing.assert_allclose(bias, -0.5 * deltas.mean(axis=0), rtol=1e-12)


def test_where_the_recipe_averages_the_network_is_the_mean_of_the_parameters() -> None:
    training = start(replace(SHORT, average_decay=0.5), ThreadPool(1), count=24)
    mean = training.state()["parameters"].copy()
    for step in range(1, 16):
        training.step()
        mean += (1 - min(0.5, step / (step + 9))) * (training.state()["parameters"] - mean)
    np.testing.assert_allclose(vector_of(training.network), mean, rtol=1e-5, atol=1e-7)
    assert not np.allclose(training.state()["parameters"], mean)


def test_the_last_epochs_are_distorted_less() -> None:
    # Of 10 epochs 7: their product is not a whole number in binary.
    def after(epoch: int, **changes: Any) -> Network:
        training = start(
            replace(EVERYTHING, epochs=10, schedule="constant", **changes), ThreadPool(1)
        )
        training.restore(training.state(), replace(training.position, steps=epoch * 2))
        training.step()
        return training.network

    for epoch in range(10):
        strong, mixed = after(epoch, gentle_share=0), after(epoch, gentle_share=0.7)
        assert np.array_equal(vector_of(strong), vector_of(mixed)) == (epoch < 3)


def test_images_without_rows_and_columns_are_not_distorted() -> None:
    spec = InputSpec((16,))
    network = initial_network(EVERYTHING, 16, CLASSES)
    with pytest.raises(TrainingError, match=r"warp: expected images of rows and columns.*\(16,\)"):
        Training(EVERYTHING, network, images(10, (16,)), spec, pool=ThreadPool(1))


def test_a_loss_that_is_not_a_number_stops_the_training_and_says_what_to_try() -> None:
    recipe = replace(SEED, hidden_sizes=(4,), activation="relu", learning_rate=1e200, epochs=50)
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match="diverged: in step .* is nan.* lower --learning-rate"),
    ):
        trained(recipe)


def test_many_classes_do_not_hide_that_a_training_diverged() -> None:
    recipe = replace(SMALL, schedule="constant", optimizer="gradient-descent", learning_rate=1e4)
    network = initial_network(recipe, SPEC.values_per_image, 200)
    many = Split(images(400).images, np.arange(400) % 200)
    with pytest.raises(TrainingError, match=r"the loss is 1\d\.\d, guessing has 5.3"):
        finish(Training(recipe, network, many, SPEC, pool=ThreadPool(1)))


def test_an_epoch_with_a_loss_far_above_guessing_stops_the_training_too() -> None:
    # Finite all the time: the output is surely one class or another, which are 18.4 nats at most.
    recipe = replace(SMALL, schedule="constant", optimizer="gradient-descent", learning_rate=1e4)
    with pytest.raises(
        TrainingError,
        match=r"in step 3 of 300 the loss is \d+\.?\d*, guessing has 1.61; "
        "try a lower --learning-rate than 10000",
    ):
        trained(recipe)
