import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlpserve.model.activations import (
    ACTIVATIONS,
    OUTPUT_ACTIVATION,
    Activation,
    ActivationFunction,
    FloatArray,
    relu,
    sigmoid,
    softmax,
    tanh,
)

DTYPES = (np.float32, np.float64)
# All finite values, up to the largest of the dtype. A warning of NumPy's fails the test.
FINITE = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)
# Steps of 1/8, so that adding one to another is exact in float32 too.
EIGHTHS = st.integers(-80, 80).map(lambda number: number / 8)

FUNCTIONS: dict[str, ActivationFunction] = {
    OUTPUT_ACTIVATION: softmax,
    **{name: activation.function for name, activation in ACTIVATIONS.items()},
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
every_line_of_the_table = pytest.mark.parametrize(
    "activation", ACTIVATIONS.values(), ids=ACTIVATIONS
)


def tolerance(array: FloatArray) -> float:
    return 8 * float(np.finfo(array.dtype).eps)


@every_function
@given(sums=FINITE)
def test_no_finite_sum_overflows(function: ActivationFunction, sums: FloatArray) -> None:
    outputs = function(sums)
    assert outputs.shape == sums.shape
    assert outputs.dtype == sums.dtype
    assert np.isfinite(outputs).all()


@every_function
@pytest.mark.parametrize("dtype", DTYPES)
def test_largest_and_smallest_sum_together_do_not_overflow(
    function: ActivationFunction, dtype: type[np.floating]
) -> None:
    limits = np.finfo(dtype)
    sums: FloatArray = np.array([[limits.min, 0, limits.max]], dtype)
    assert np.isfinite(function(sums)).all()


@every_function
def test_sums_are_left_as_they_were(function: ActivationFunction) -> None:
    sums = np.array([[-2.0, 0.5, 3.0]])
    function(sums)
    np.testing.assert_array_equal(sums, [[-2.0, 0.5, 3.0]])


@every_function
@given(sums=FINITE)
def test_outputs_are_the_same_bits_in_an_array_that_is_given_even_the_sums_own(
    function: ActivationFunction, sums: FloatArray
) -> None:
    expected = function(sums)
    assert function(sums, out=sums) is sums
    np.testing.assert_array_equal(sums, expected)


@every_line_of_the_table
@given(sums=FINITE)
def test_no_output_is_larger_than_the_table_says(activation: Activation, sums: FloatArray) -> None:
    # The proof that a network cannot overflow rests on this.
    limits = np.ones_like(sums) if activation.is_bounded else np.abs(sums)
    assert (np.abs(activation.function(sums)) <= limits).all()


@every_line_of_the_table
def test_the_backward_function_multiplies_by_the_slope(activation: Activation) -> None:
    sums = np.linspace(-4, 4, 40).reshape(4, 10)  # 0, where relu has no slope, is not among them
    step = 1e-6
    rise = activation.function(sums + step) - activation.function(sums - step)
    deltas = np.arange(40.0).reshape(4, 10)
    expected = deltas * rise / (2 * step)
    activation.backward(deltas, activation.function(sums))
    np.testing.assert_allclose(deltas, expected, rtol=1e-6, atol=1e-8)


@given(sums=FINITE)
def test_softmax_rows_are_shares_of_1(sums: FloatArray) -> None:
    shares = softmax(sums)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=tolerance(sums))


@given(
    sums=hnp.arrays(np.float32, (2, 3), elements=EIGHTHS),
    constants=hnp.arrays(np.float32, (2, 1), elements=EIGHTHS),
)
def test_softmax_does_not_change_with_a_constant_added_to_a_row(
    sums: npt.NDArray[np.float32], constants: npt.NDArray[np.float32]
) -> None:
    np.testing.assert_array_equal(softmax(sums + constants), softmax(sums))


@given(sums=hnp.arrays(np.float64, (2, 3), elements=st.floats(-50, 50)))
def test_softmax_equals_its_definition(sums: npt.NDArray[np.float64]) -> None:
    exponentials = np.exp(sums)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(sums), expected, rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_equals_its_definition(dtype: type[np.floating]) -> None:
    sums: FloatArray = np.linspace(-30, 30, 601, dtype=dtype).reshape(1, -1)
    expected = 1 / (1 + np.exp(-sums.astype(np.float64)))
    np.testing.assert_allclose(sigmoid(sums), expected, rtol=0, atol=tolerance(sums))


def test_tanh_and_relu_equal_their_definitions() -> None:
    sums = np.array([[-1.5, 0.0, 2.0]])
    growing, falling = np.exp(sums), np.exp(-sums)
    np.testing.assert_allclose(tanh(sums), (growing - falling) / (growing + falling), rtol=1e-15)
    np.testing.assert_array_equal(relu(sums), [[0.0, 0.0, 2.0]])
