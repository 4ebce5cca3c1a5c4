"""Threads that share out the parameters learn what one thread learns, and none waits for ever."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.learning.backprop import Batch
from mlpserve.trainer.learning.engine import NUMPY, engine_of
from mlpserve.trainer.learning.optimizers import Step
from mlpserve.trainer.learning.parameters import vector_of
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.recipes import FAST

CLASSES = 4
SPEC = InputSpec((4, 5))
COMPILES = pytest.mark.exhaustive  # in ten seconds
PAIR = replace(
    FAST, hidden_sizes=(64,), epochs=3, batch_size=5, dtype="float64", validation_share=0
)
RECIPES = {
    "a pair": PAIR,
    "a pair of uneven parts": replace(PAIR, hidden_sizes=(13,)),
    "a layer without a partner": replace(PAIR, hidden_sizes=(12, 9)),
    "two pairs": replace(PAIR, hidden_sizes=(12, 9, 8)),
    "three pairs": replace(PAIR, hidden_sizes=(12, 9, 8, 7, 6)),
    "everything": replace(
        PAIR,
        hidden_sizes=(64, 8, 7),
        weight_decay=0.01,
        label_smoothing=0.1,
        average_decay=0.9,
        learned_probability=0.3,
    ),
}


def module(name: str) -> Any:
    """Return a module that needs Numba, which not every process of the tests has to import."""
    return importlib.import_module(f"mlpserve.trainer.learning.numba_engine.{name}")


def learner_of(recipe: Recipe, pool: ThreadPool) -> Any:
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    return module("tensor_parallel").TensorParallel(recipe, network, pool)


def is_suited(recipe: Recipe) -> bool:
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    is_suited: bool = module("tensor_parallel").TensorParallel.suits(recipe, network, 2)
    return is_suited


class _LostError(Exception):
    """An error of a thread, for these tests."""


def start(recipe: Recipe, pool: ThreadPool) -> Training:
    pixels = np.random.default_rng(6).integers(0, 256, (24, *SPEC.shape), np.uint8)
    pixels[:, 0] = 0  # as the border of MNIST's images is
    split = Split(pixels, np.arange(24) % CLASSES)
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    assert is_suited(recipe)
    engine = NUMPY if pool.size == 1 else engine_of("numba")
    return Training(recipe, network, split, SPEC, pool=pool, engine=engine)


def finish(training: Training) -> Training:
    while training.position.steps < training.steps:
        training.step()
    return training


def learned(recipe: Recipe, threads: int) -> Training:
    with ThreadPool(threads) as pool:
        return finish(start(recipe, pool))


@COMPILES
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_it_learns_what_one_thread_learns(recipe: Recipe, threads: int) -> None:
    found, expected = learned(recipe, threads), learned(recipe, 1)
    for name, vector in expected.state().items():
        np.testing.assert_allclose(found.state()[name], vector, rtol=1e-7, atol=1e-7)
    assert found.position.correct == expected.position.correct
    assert found.position.loss_sum == pytest.approx(expected.position.loss_sum)


@COMPILES
def test_the_same_number_of_threads_gives_the_same_bits() -> None:
    one, again = (learned(RECIPES["everything"], 2) for _ in range(2))
    np.testing.assert_array_equal(vector_of(one.network), vector_of(again.network))


@COMPILES
def test_it_goes_on_from_a_state_as_if_it_had_never_stopped() -> None:
    recipe = RECIPES["everything"]
    with ThreadPool(2) as pool:
        training = start(recipe, pool)
        for _ in range(7):
            training.step()
        state, position = dict(training.state()), training.position
        uninterrupted = finish(training)
        resumed = start(recipe, pool)
        resumed.restore(state, position)
        finish(resumed)
    np.testing.assert_array_equal(vector_of(resumed.network), vector_of(uninterrupted.network))


@COMPILES
def test_the_pool_is_there_for_other_work_between_two_steps() -> None:
    with ThreadPool(2) as pool:
        training = start(PAIR, pool)
        for _ in range(4):
            training.step()
            # Only a thread that has left can take this: so it is called again for the next step.
            assert pool.run(lambda index: index) == [0, 1]
        finish(training)
    np.testing.assert_array_equal(vector_of(training.network), vector_of(learned(PAIR, 2).network))


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "tanh"},
        {"optimizer": "momentum"},
        {"dropout": 0.1},
        {"batch_size": 0},
        {"hidden_sizes": ()},
        {"hidden_sizes": (64, 1)},
    ],
)
def test_other_recipes_are_trained_by_data_parallelism(change: dict[str, Any]) -> None:
    assert not is_suited(replace(PAIR, **change))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_parts_together_are_the_network(recipe: Recipe) -> None:
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    with ThreadPool(3) as pool:
        learner = learner_of(recipe, pool)
        np.testing.assert_array_equal(learner.learned(), vector_of(network))
        state = {name: np.arange(len(v)) + 0.5 for name, v in learner.state().items()}
        learner.restore(state)
        for name, vector in learner.state().items():
            np.testing.assert_array_equal(vector, state[name])


def failing(thread: int, error: BaseException) -> Callable[..., bool]:
    """Return a step in which a thread fails, and the other waits for it."""
    team = module("team")

    def learn(counters: Any, part: Any, *_: object) -> bool:
        if part.thread == thread:
            raise error
        team.arrive(counters)
        is_everybody_there: bool = team.await_arrivals(counters, 2)
        return is_everybody_there

    return learn


def one_step(learner: Any) -> None:
    def fill(_: slice, out: np.ndarray[Any, Any]) -> None:
        out[:] = 0

    learner.step(Batch(np.zeros(5, np.int64), fill), Step(1, 0.1))


@pytest.mark.parametrize("thread", [0, 1])
@pytest.mark.parametrize("error", [_LostError("lost"), KeyboardInterrupt()], ids=repr)
def test_a_thread_that_fails_is_waited_for_by_nobody(
    thread: int, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("fused_step"), "learn", failing(thread, error))
    # If the other waited, the pool's end would wait for that, and never come.
    with ThreadPool(2) as pool, pytest.raises(type(error)):
        one_step(learner_of(PAIR, pool))
