"""Passes of batches: chunks, shards, reuse and rows left out. See also the gradients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.model.activations import FloatArray
from mlpserve.model.network import Layer, Network
from mlpserve.trainer.learning.backprop import (
    Backpropagation,
    Batch,
    BatchResult,
    Columns,
    Labels,
)
from mlpserve.trainer.learning.distillation import Distillation
from mlpserve.trainer.learning.initialization import he
from mlpserve.trainer.learning.parameters import Vector
from passes import batch_of, loss_and_gradients

WIDTH, CLASSES = 3, 4


def batch(count: int, seed: int = 1) -> tuple[FloatArray, Labels]:
    rng = np.random.default_rng(seed)
    return rng.random((count, WIDTH)), rng.integers(0, CLASSES, count)


def shaken(*hidden_sizes: int, scale: float = 1) -> Network:
    """Return a network with biases that are not 0; with a large scale it is sure of much."""
    network = he((WIDTH, *hidden_sizes, CLASSES), "tanh", seed=1)
    rng = np.random.default_rng(3)
    return network.with_parameters(
        [scale * (array + rng.normal(0, 0.3, array.shape)) for array in network.parameters]
    )


def run(
    backpropagation: Backpropagation,
    inputs: FloatArray,
    labels: Labels,
    *,
    rows: slice | None = None,
    rng: np.random.Generator | None = None,
) -> BatchResult:
    """Run some rows of a batch, or all."""
    rows = rows or slice(0, len(labels))
    return backpropagation.run(batch_of(inputs, labels), rows, rng=rng)


def fresh(
    network: Network, inputs: FloatArray, labels: Labels, rows: slice | None = None
) -> Vector:
    """Return the gradient of some rows of a batch, or of all, in arrays that nobody has used."""
    backpropagation = Backpropagation(network, max_rows=max(1, len(labels)))
    run(backpropagation, inputs, labels, rows=rows)
    return backpropagation.gradient


def test_a_batch_worked_by_hand() -> None:
    # One layer, two inputs, two classes, all parameters 0: both probabilities are 1/2 whatever the
    # input. Rows (1, 0) of class 0 and (0, 2) of class 1, so
    #   D = (P - Y) / 2 = [[-1/4, 1/4], [1/4, -1/4]]
    #   dW = X.T @ D    = [[-1/4, 1/4], [1/2, -1/2]]
    #   db = sum of D   = [0, 0]
    # The loss is ln 2; of equal probabilities the first is taken, so the first row is right.
    network = Network((Layer(np.zeros((2, 2)), np.zeros(2), "softmax"),))
    backpropagation = Backpropagation(network, max_rows=2)
    result = run(backpropagation, np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0, 1]))
    assert result.loss == pytest.approx(math.log(2), abs=1e-7)
    assert result.correct == 1
    np.testing.assert_allclose(backpropagation.gradients[0], [[-0.25, 0.25], [0.5, -0.5]])
    np.testing.assert_allclose(backpropagation.gradients[1], [0, 0], atol=1e-15)


@given(count=st.integers(1, 2500))
@settings(max_examples=30)
def test_a_batch_larger_than_a_chunk_gives_the_mean_of_its_rows(count: int) -> None:
    network = shaken(5)
    inputs, labels = batch(count)
    backpropagation = Backpropagation(network, max_rows=2 * count)
    once = run(backpropagation, inputs, labels)
    gradient = backpropagation.gradient.copy()
    of_truth = network.probabilities(inputs)[np.arange(count), labels]
    assert once.loss == pytest.approx(-np.log(of_truth).mean(), rel=1e-6)
    # Twice the same rows: twice as many of them right, and the same means.
    twice = run(backpropagation, np.repeat(inputs, 2, axis=0), np.repeat(labels, 2))
    assert twice.loss == pytest.approx(once.loss)
    assert twice.correct == 2 * once.correct
    np.testing.assert_allclose(backpropagation.gradient, gradient, rtol=1e-9, atol=1e-12)


@given(count=st.integers(1, 2300), nonzero=st.sets(st.integers(0, WIDTH - 1)))
@settings(max_examples=30)
def test_columns_that_are_0_in_all_rows_may_be_left_out(count: int, nonzero: set[int]) -> None:
    columns = np.array(sorted(nonzero), np.intp)
    network, (inputs, labels) = shaken(5), batch(count)
    inputs[:, sorted(set(range(WIDTH)) - nonzero)] = 0
    expected = fresh(network, inputs, labels)
    compact = Backpropagation(network, max_rows=count)
    # Whatever an earlier batch left in the arrays must not show.
    run(compact, *batch(count, seed=2))

    def fill(rows: slice, out: FloatArray) -> Columns:
        out[:, : len(columns)] = inputs[rows][:, columns]
        return columns

    compact.run(Batch(labels, fill), slice(0, count))
    np.testing.assert_allclose(compact.gradient, expected, rtol=1e-12, atol=1e-15)


@given(counts=st.lists(st.integers(0, 2300), min_size=2, max_size=4))
@settings(max_examples=20)
def test_one_used_for_batches_of_different_sizes_gives_what_fresh_ones_give(
    counts: list[int],
) -> None:
    network = shaken(5, 4)
    used = Backpropagation(network, max_rows=2300)
    for seed, count in enumerate(counts):
        inputs, labels = batch(2300, seed)
        run(used, inputs, labels, rows=slice(0, count))
        expected = fresh(network, inputs, labels, slice(0, count))
        np.testing.assert_allclose(used.gradient, expected, rtol=1e-9, atol=1e-14)


@given(cut=st.integers(0, 60))
@settings(max_examples=20)
def test_the_shards_of_a_batch_add_up_to_it(cut: int) -> None:
    network, (inputs, labels) = shaken(5), batch(60)
    whole = Backpropagation(network, max_rows=60)
    part = Backpropagation(network, max_rows=60)
    expected = run(whole, inputs, labels)
    loss, correct, gradient = 0.0, 0, np.zeros_like(whole.gradient)
    for rows in (slice(0, cut), slice(cut, 60)):
        result = run(part, inputs, labels, rows=rows)
        loss, correct = loss + result.loss, correct + result.correct
        gradient += part.gradient
    assert loss == pytest.approx(expected.loss)
    assert correct == expected.correct
    np.testing.assert_allclose(gradient, whole.gradient, rtol=1e-9, atol=1e-14)


def test_an_empty_shard_adds_nothing_whatever_came_before() -> None:
    network, (inputs, labels) = shaken(5), batch(20)
    backpropagation = Backpropagation(network, max_rows=20)
    run(backpropagation, inputs, labels)
    assert run(backpropagation, inputs, labels, rows=slice(20, 20)) == BatchResult(0, 0)
    assert not backpropagation.gradient.any()


def test_the_gradients_are_views_of_the_gradient_in_the_shapes_of_the_parameters() -> None:
    network, (inputs, labels) = shaken(5, 4), batch(20)
    backpropagation = Backpropagation(network, max_rows=20)
    run(backpropagation, inputs, labels)
    flat = np.concatenate([array.ravel() for array in backpropagation.gradients])
    np.testing.assert_array_equal(flat, backpropagation.gradient)
    for gradient, parameter in zip(backpropagation.gradients, network.parameters, strict=True):
        assert gradient.shape == parameter.shape


@pytest.mark.parametrize("label_smoothing", [0.0, 0.15])
@pytest.mark.parametrize("kept_share", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("count", [30, 2500])
def test_rows_that_are_learned_are_left_out_of_the_gradient_and_of_nothing_else(
    count: int, kept_share: float, label_smoothing: float
) -> None:
    network, (inputs, labels) = shaken(5, scale=4), batch(count)
    of_truth = network.probabilities(inputs)[np.arange(count), labels]
    limit = float(np.quantile(of_truth, kept_share, method="midpoint"))
    learned = of_truth >= limit
    whole, kept_rows, selecting = (
        Backpropagation(
            network,
            max_rows=count,
            label_smoothing=label_smoothing,
            learned_probability=probability,
        )
        for probability in (1, 1, limit)
    )
    expected = run(whole, inputs, labels)
    kept_first = np.argsort(learned, kind="stable")
    kept_count = int(np.count_nonzero(~learned))
    run(kept_rows, inputs[kept_first], labels[kept_first], rows=slice(0, kept_count))
    assert run(selecting, inputs, labels) == expected
    np.testing.assert_allclose(selecting.gradient, kept_rows.gradient, rtol=1e-9, atol=1e-14)


def test_none_is_left_out_where_that_would_cost_more_than_it_saves() -> None:
    network, (inputs, labels) = shaken(5, scale=4), batch(30)
    of_truth = network.probabilities(inputs)[np.arange(30), labels]
    limit = float(np.sort(of_truth)[-3])
    selecting = Backpropagation(network, max_rows=30, learned_probability=limit)
    run(selecting, inputs, labels)
    np.testing.assert_array_equal(selecting.gradient, fresh(network, inputs, labels))


def test_where_all_is_learned_the_gradient_is_0() -> None:
    network, (inputs, labels) = shaken(5), batch(30)
    backpropagation = Backpropagation(network, max_rows=30, learned_probability=1e-9)
    run(backpropagation, inputs, labels)
    assert not backpropagation.gradient.any()


def test_rows_that_are_kept_keep_what_was_dropped_of_them() -> None:
    # The last layer is sure of class 0 whatever it sees, so the rows of it are learned. They come
    # first: of the masks, drawn row by row, the others have what comes after theirs.
    width, learned, kept = 5, 12, 8
    network = shaken(width)
    network.layers[-1].bias[:] = [9, 0, 0, 0]
    inputs, labels = batch(learned + kept)
    labels[:learned], labels[learned:] = 0, 2
    selecting = Backpropagation(network, max_rows=20, dropout=0.4, learned_probability=0.9)
    run(selecting, inputs, labels, rng=np.random.default_rng(7))
    rng = np.random.default_rng(7)
    rng.random((learned, width), np.float32)
    kept_rows = Backpropagation(network, max_rows=20, dropout=0.4)
    run(kept_rows, inputs, labels, rows=slice(learned, learned + kept), rng=rng)
    np.testing.assert_allclose(selecting.gradient, kept_rows.gradient, rtol=1e-9, atol=1e-14)


def test_zero_columns_may_be_left_out_where_rows_are_and_outputs_are_dropped() -> None:
    network, (inputs, labels) = shaken(5, scale=4), batch(30)
    inputs[:, 1] = 0
    gradients = []
    for columns in (None, np.array([0, 2])):
        backpropagation = Backpropagation(
            network, max_rows=30, dropout=0.4, learned_probability=0.3
        )

        def fill(rows: slice, out: FloatArray, kept: Columns | None = columns) -> Columns | None:
            seen = inputs[rows] if kept is None else inputs[rows][:, kept]
            out[:, : seen.shape[1]] = seen
            return kept

        rng = np.random.default_rng(1)
        backpropagation.run(Batch(labels, fill), slice(0, 30), rng=rng)
        gradients.append(backpropagation.gradient)
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-12, atol=1e-15)


def test_teachers_are_asked_about_all_columns_of_the_rows_that_are_kept_only() -> None:
    network, (inputs, labels) = shaken(5, scale=4), batch(30)
    inputs[:, 1] = 0
    of_truth = network.probabilities(inputs)[np.arange(30), labels]
    limit = float(np.quantile(of_truth, 0.4, method="midpoint"))
    learned = of_truth >= limit
    distillation = Distillation([shaken(6)], share=0.7, temperature=2)
    selecting = Backpropagation(
        network, max_rows=30, learned_probability=limit, distillation=distillation
    )

    def fill(rows: slice, out: FloatArray) -> Columns:
        out[:, :2] = inputs[rows][:, [0, 2]]
        out[:, 2] = np.nan  # what is there is nobody's
        return np.array([0, 2])

    result = selecting.run(Batch(labels, fill), slice(0, 30))
    kept_first = np.argsort(learned, kind="stable")
    kept_rows = Backpropagation(network, max_rows=30, distillation=distillation)
    kept = slice(0, int(np.count_nonzero(~learned)))
    run(kept_rows, inputs[kept_first], labels[kept_first], rows=kept)
    np.testing.assert_allclose(selecting.gradient, kept_rows.gradient, rtol=1e-9, atol=1e-14)
    assert result == run(Backpropagation(network, max_rows=30), inputs, labels)


def test_dropped_outputs_leave_the_mean_of_all_as_it_is() -> None:
    # The second layer adds up what it sees, so its gradient shows what came through: each output
    # is 1, and with 0.25 of them dropped those that are left count 4/3.
    network = Network(
        (
            Layer(np.zeros((1, 2)), np.ones(2), "relu"),
            Layer(np.zeros((2, 2)), np.zeros(2), "softmax"),
        )
    )
    count = 200_000
    inputs, labels = np.zeros((count, 1)), np.zeros(count, np.int64)
    _, gradients = loss_and_gradients(
        network, inputs, labels, dropout=0.25, rng=np.random.default_rng(1)
    )
    # Without dropout each element is the mean of 1 * (1/2 - 1) or 1 * 1/2.
    np.testing.assert_allclose(gradients[2], [[-0.5, 0.5], [-0.5, 0.5]], rtol=0.01)


def test_dropout_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="rng: dropout draws from a generator, got None"):
        loss_and_gradients(shaken(5), *batch(9), dropout=0.5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_stays_finite_where_the_network_is_surely_wrong(label_smoothing: float) -> None:
    certain = Network((Layer(np.array([[0.0, 5000.0]]), np.zeros(2), "softmax"),))
    loss, gradients = loss_and_gradients(
        certain, np.ones((1, 1)), np.array([0]), label_smoothing=label_smoothing
    )
    assert loss == pytest.approx((1 - label_smoothing / 2) * -math.log(1e-8))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
