"""The engine that Numba compiles comes to what NumPy's does, but for rounding."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.datasets import Split
from mlpserve.model.activations import ACTIVATIONS
from mlpserve.model.inputs import InputSpec, ValueRange
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning import engine
from mlpserve.trainer.learning.batches import SparseInputs
from mlpserve.trainer.learning.engine import NUMPY, Engine, default_engine, engine_of
from mlpserve.trainer.learning.parameters import vector_of
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.learning.warps import WarpSettings
from mlpserve.trainer.recipes import BEST, FAST

CLASSES = 4
SHAPE = (4, 5)
SPEC = InputSpec(SHAPE)
EXHAUSTIVE = pytest.mark.exhaustive  # each dtype is compiled anew
# 24 images in batches of 5 are 5 steps an epoch, the last a short one.
NARROW = replace(
    FAST,
    hidden_sizes=(9, 7),
    activation="tanh",
    epochs=3,
    batch_size=5,
    dtype="float64",
    validation_share=0,
)
RECIPES = {
    "narrow": NARROW,
    "wide": replace(NARROW, hidden_sizes=(64,), activation="relu"),
    "sigmoid": replace(NARROW, activation="sigmoid", optimizer="momentum"),
    "whole": replace(NARROW, batch_size=0, optimizer="gradient-descent", learning_rate=0.1),
    "everything": replace(
        NARROW,
        hidden_sizes=(64, 8),
        weight_decay=0.01,
        label_smoothing=0.1,
        dropout=0.2,
        average_decay=0.9,
        learned_probability=0.9,
    ),
}


@pytest.fixture(scope="module")
def numba() -> Engine:
    return engine_of("numba")


def images(count: int = 24, *, seed: int = 6) -> Split:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)
    pixels[:, 0] = 0  # as the border of MNIST's images is
    pixels[:, 2, 2] = 0  # and one inside
    return Split(pixels, np.arange(count) % CLASSES)


def mostly_black(split: Split) -> Split:
    """Return images of which four in five pixels are 0, one image has none, and one all."""
    is_black = np.random.default_rng(8).random(split.images.shape) < 0.8
    is_black[3], is_black[4] = False, True
    return Split(split.images * ~is_black, split.labels)


def train(
    recipe: Recipe,
    by: Engine,
    *,
    threads: int = 1,
    split: Split | None = None,
    spec: InputSpec = SPEC,
    teachers: Sequence[Network] = (),
) -> Training:
    split = split or images()
    network = initial_network(recipe, spec.values_per_image, CLASSES)
    with ThreadPool(threads) as pool:
        training = Training(recipe, network, split, spec, pool=pool, engine=by, teachers=teachers)
        while training.position.steps < training.steps:
            training.step()
    return training


def assert_alike(one: Training, other: Training, tolerance: float = 1e-7) -> None:
    found, expected = (vector_of(training.network) for training in (one, other))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    assert one.position.correct == other.position.correct
    assert one.position.loss_sum == pytest.approx(other.position.loss_sum, rel=tolerance)


@EXHAUSTIVE
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_both_engines_learn_the_same(recipe: Recipe, threads: int, numba: Engine) -> None:
    assert_alike(train(recipe, numba, threads=threads), train(recipe, NUMPY, threads=threads))


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=EXHAUSTIVE)])
def test_both_engines_learn_the_same_in_float32(threads: int, numba: Engine) -> None:
    recipe = replace(RECIPES["wide"], dtype="float32")
    found, expected = (train(recipe, by, threads=threads) for by in (numba, NUMPY))
    assert_alike(found, expected, tolerance=1e-4)


@EXHAUSTIVE
def test_a_batch_of_several_chunks_without_some_columns_is_learned_alike(numba: Engine) -> None:
    recipe = replace(RECIPES["wide"], batch_size=1500)
    split = images(1700)
    assert_alike(train(recipe, numba, split=split), train(recipe, NUMPY, split=split))


@EXHAUSTIVE
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_both_engines_learn_the_same_from_images_that_are_mostly_black(
    recipe: Recipe, threads: int, numba: Engine
) -> None:
    split = mostly_black(images())
    found, expected = (train(recipe, by, threads=threads, split=split) for by in (numba, NUMPY))
    assert_alike(found, expected)


@pytest.mark.parametrize("warp", [None, WarpSettings()], ids=["", "warped, but not moved"])
def test_mostly_black_images_are_learned_alike_in_float32(
    warp: WarpSettings | None, numba: Engine
) -> None:
    recipe = replace(
        NARROW, hidden_sizes=(16,), dtype="float32", learned_probability=0.9, warp=warp
    )
    split = mostly_black(images())
    assert numba.sparse_inputs(split.images, SPEC) is not None
    found, expected = (train(recipe, by, threads=2, split=split) for by in (numba, NUMPY))
    assert_alike(found, expected, tolerance=1e-4)


@EXHAUSTIVE
def test_parts_of_an_epoch_may_be_mostly_black_in_turn(numba: Engine) -> None:
    recipe = replace(NARROW, hidden_sizes=(16,), dtype="float32", warp=WarpSettings(), epochs=4)
    is_dense = cycle([False, True])

    def sparse_in_turn(images: Any, spec: InputSpec) -> SparseInputs | None:
        return None if next(is_dense) else numba.sparse_inputs(images, spec)

    split = mostly_black(images())
    in_turn = replace(numba, sparse_inputs=sparse_in_turn)
    found, expected = (train(recipe, by, split=split) for by in (in_turn, NUMPY))
    assert_alike(found, expected, tolerance=1e-4)


@EXHAUSTIVE
def test_teachers_see_all_of_images_that_are_mostly_black(numba: Engine) -> None:
    recipe = RECIPES["everything"]
    teacher = initial_network(replace(recipe, seed=9), SPEC.values_per_image, CLASSES)
    split = mostly_black(images())
    found, expected = (train(recipe, by, split=split, teachers=[teacher]) for by in (numba, NUMPY))
    assert_alike(found, expected)


@EXHAUSTIVE
@pytest.mark.parametrize("recipe", [RECIPES["narrow"], RECIPES["wide"]], ids=["narrow", "wide"])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_of_a_range_are_learned_alike(
    recipe: Recipe, dtype: type[np.generic], numba: Engine
) -> None:
    bytes_only = images()
    values = bytes_only.images.astype(np.int32) - 100
    split = Split(values.astype(dtype), bytes_only.labels)
    spec = InputSpec(SHAPE, value_range=ValueRange(-100, 155))
    found, expected = (train(recipe, by, split=split, spec=spec) for by in (numba, NUMPY))
    assert_alike(found, expected, tolerance=1e-5)  # NumPy subtracts in float32 here


@EXHAUSTIVE
@given(seed=st.integers(0, 100), count=st.integers(1, 40), zero=st.sets(st.integers(0, 19)))
@settings(max_examples=30)
def test_the_same_columns_are_left_out(seed: int, count: int, zero: set[int]) -> None:
    split = images(count, seed=seed)
    split.images.reshape(count, -1)[:, sorted(zero)] = 0
    recipe = replace(RECIPES["wide"], batch_size=count, epochs=1)
    assert_alike(train(recipe, engine_of("numba"), split=split), train(recipe, NUMPY, split=split))


@EXHAUSTIVE
@pytest.mark.parametrize("split", [images(), mostly_black(images())], ids=["dense", "black"])
@pytest.mark.parametrize("recipe", [RECIPES["wide"], RECIPES["everything"]], ids=["wide", "all"])
def test_the_same_seed_and_threads_give_the_same_bits(
    recipe: Recipe, split: Split, numba: Engine
) -> None:
    one, again = (vector_of(train(recipe, numba, threads=2, split=split).network) for _ in range(2))
    np.testing.assert_array_equal(one, again)


@EXHAUSTIVE
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_training_that_diverges_is_refused_by_both(activation: str, numba: Engine) -> None:
    recipe = replace(
        RECIPES["wide"],
        activation=activation,
        optimizer="gradient-descent",
        learning_rate=1e200,
        schedule="constant",
    )
    for by in (numba, NUMPY):
        with np.errstate(all="ignore"), pytest.raises(TrainingError, match="diverged"):
            train(recipe, by)


def test_long_trainings_use_numba_and_short_ones_do_not_start_it() -> None:
    for recipe, expected in ((FAST, "numpy"), (BEST, "numba")):
        network = initial_network(recipe, 784, 10)
        assert default_engine(recipe, network, 60_000) == expected


def test_without_numba_numpy_is_used_and_numba_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_numba", lambda: False)
    assert default_engine(BEST, initial_network(BEST, 784, 10), 60_000) == "numpy"
    with pytest.raises(TrainingError, match=r"pip install 'mlpserve\[numba\]'"):
        engine_of("numba")
