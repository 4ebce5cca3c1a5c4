import numpy as np
import pytest

from mlpserve.model.inputs import InputSpec

SPEC = InputSpec((2, 3))
DTYPES = (np.float32, np.float64)
PICTURES = np.array([[[0, 1, 2], [51, 254, 255]], [[3, 0, 99], [128, 7, 200]]], np.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_uint8_is_scaled_to_0_to_1(dtype: type[np.floating]) -> None:
    inputs = SPEC.scale(PICTURES, dtype)
    assert inputs.dtype == dtype
    expected = np.array([0, 1 / 255, 2 / 255, 0.2, 254 / 255, 1], dtype)
    np.testing.assert_array_equal(inputs[0], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_uint8_and_float_of_one_picture_are_the_same_input(dtype: type[np.floating]) -> None:
    floats = np.divide(PICTURES, 255, dtype=dtype)
    np.testing.assert_array_equal(SPEC.scale(PICTURES, dtype), SPEC.scale(floats, dtype))


def test_other_divisor_divides() -> None:
    spec = InputSpec((2, 3), uint8_divisor=510)
    np.testing.assert_array_equal(spec.scale(PICTURES) * 2, SPEC.scale(PICTURES))


def test_floats_are_taken_as_they_are() -> None:
    values = np.array([[0, 0.5, 1, 0.25, 0.125, 0.75]])
    inputs = SPEC.scale(values)
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, values)


@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 6), (5, 3, 2), (5, 1, 6)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_of_any_shape_become_rows(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    images = np.arange(30).astype(dtype).reshape(shape)
    inputs = SPEC.scale(images)
    assert inputs.shape == (5, 6)
    expected = images.reshape(5, 6) / (255 if dtype is np.uint8 else 1)
    np.testing.assert_allclose(inputs, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 6)], ids=str)
def test_float32_is_not_copied(shape: tuple[int, ...]) -> None:
    images = np.zeros(shape, np.float32)
    assert np.shares_memory(SPEC.scale(images), images)


def test_images_are_left_as_they_were() -> None:
    images = PICTURES.copy()
    SPEC.scale(images)
    np.testing.assert_array_equal(images, PICTURES)


def test_no_images_are_no_rows() -> None:
    assert SPEC.scale(np.zeros((0, 2, 3), np.uint8)).shape == (0, 6)


@pytest.mark.parametrize(("shape", "count"), [((28, 28), 784), ((3, 8, 8), 192), ((5,), 5)])
def test_values_per_image_are_the_product_of_the_shape(shape: tuple[int, ...], count: int) -> None:
    assert InputSpec(shape).values_per_image == count
