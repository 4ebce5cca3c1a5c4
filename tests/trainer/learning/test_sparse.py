"""Products of matrices without their zeros are those of the whole matrices."""

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.model.inputs import InputSpec, ValueRange

EXHAUSTIVE = pytest.mark.exhaustive  # each width is compiled anew
SPEC = InputSpec((5, 8))


@pytest.fixture(scope="module", name="sparse")
def sparse_module() -> Any:
    # Not at the top: it takes a second, also of the processes that run other tests.
    return importlib.import_module("mlpserve.trainer.learning.numba_engine.sparse")


def pixels(rows: int, columns: int, *, density: float = 0.2, seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 256, (rows, columns), np.uint8)
    return np.where(rng.random((rows, columns)) < density, values, 0).astype(np.uint8)


def inputs(matrix: Any, rows: int) -> npt.NDArray[np.float64]:
    out = np.full((rows, matrix.width), 7.0)
    matrix.write(out)
    return out


@EXHAUSTIVE
@given(
    rows=st.integers(0, 40),
    columns=st.integers(1, 70),
    width=st.sampled_from([1, 7, 64, 135]),  # 135 is 64, 64, 4, 2 and 1
    density=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_products_are_those_of_the_whole_matrix(
    *, sparse: Any, rows: int, columns: int, width: int, density: float, seed: int
) -> None:
    dense = pixels(rows, columns, density=density, seed=seed)
    matrix = sparse.SparseMatrix.of(dense).take(np.arange(rows), np.float64(1 / 255))
    rng = np.random.default_rng(seed)
    weights, delta = rng.normal(size=(columns, width)), rng.normal(size=(rows, width))
    product, gradient = np.full((rows, width), 7.0), np.full((columns, width), 7.0)
    matrix.multiply(weights, product)
    matrix.multiply_transposed(delta, gradient)
    np.testing.assert_allclose(product, dense / 255 @ weights, atol=1e-12)
    np.testing.assert_allclose(gradient, (dense / 255).T @ delta, atol=1e-12)


@EXHAUSTIVE
def test_rows_are_taken_in_any_order_and_more_than_once(sparse: Any) -> None:
    dense, rows = pixels(9, 12), np.array([8, 0, 0, 3])
    taken = sparse.SparseMatrix.of(dense).take(rows, np.float64(0.5))
    np.testing.assert_array_equal(inputs(taken, len(rows)), dense[rows] / 2)


@EXHAUSTIVE
def test_a_value_that_is_not_a_number_stays_one(sparse: Any) -> None:
    dense = pixels(4, 6).astype(np.float64)
    dense[2, 3] = np.nan
    out = np.empty((4, 3))
    sparse.SparseMatrix.of(dense).multiply(np.ones((6, 3)), out)
    assert np.isnan(out[2]).all()
    assert np.isfinite(out[[0, 1, 3]]).all()


@pytest.mark.parametrize(
    ("images", "spec"),
    [
        pytest.param(pixels(30, 40, density=0.4), SPEC, id="too few are black"),
        pytest.param(
            pixels(30, 40), InputSpec((5, 8), value_range=ValueRange(-1, 300)), id="black is not 0"
        ),
        pytest.param(np.zeros((1, 65_537), np.uint8), InputSpec((65_537,)), id="too many pixels"),
        pytest.param([], SPEC, id="on disk"),
    ],
)
def test_images_for_which_it_does_not_pay_stay_as_they_are(
    images: Any, spec: InputSpec, sparse: Any
) -> None:
    assert sparse.sparse_images(images, spec) is None
