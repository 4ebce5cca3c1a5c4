from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.trainer.learning.resampling import FloatArray, resample

HEIGHT, WIDTH = 5, 7


def pictures(count: int, dtype: type[np.generic] = np.float32) -> npt.NDArray[Any]:
    greys = np.random.default_rng(3).integers(0, 256, (count, HEIGHT, WIDTH), np.uint8)
    return greys if dtype == np.uint8 else (greys / 255).astype(dtype)


def pixels(warps: int) -> FloatArray:
    return np.stack([np.indices((HEIGHT, WIDTH), np.float32)] * warps)


def read(images: npt.NDArray[Any], positions: FloatArray, images_per_warp: int) -> FloatArray:
    out = np.full((len(images), HEIGHT * WIDTH), np.nan, np.float32)
    resample(images, positions, images_per_warp=images_per_warp, out=out)
    return out.reshape(images.shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_read_at_its_pixels_an_image_is_itself(dtype: type[np.generic]) -> None:
    expected = pictures(10)
    np.testing.assert_array_equal(read(pictures(10, dtype), pixels(4), 3), expected)


def test_between_pixels_it_is_the_weighted_mean_of_the_four_around() -> None:
    # Row 1.25, column 2.5: of rows 1 and 2 the shares 3/4 and 1/4, of columns 2 and 3 a half each.
    image = pictures(1)
    positions = np.zeros((1, 2, HEIGHT, WIDTH), np.float32)
    positions[0, 0], positions[0, 1] = 1.25, 2.5
    expected = 0.375 * image[0, 1, 2:4].sum() + 0.125 * image[0, 2, 2:4].sum()
    np.testing.assert_allclose(read(image, positions, 1), expected, rtol=1e-6)


@pytest.mark.parametrize(("place", "share"), [(-0.25, 0.75), (-1, 0), (-50, 0), (-1e30, 0)])
def test_an_image_fades_to_black_within_a_pixel_of_its_edge(place: float, share: float) -> None:
    white = np.ones((1, HEIGHT, WIDTH), np.float32)
    for axis, size in ((0, HEIGHT), (1, WIDTH)):
        for outside in (place, size - 1 - place):
            positions = np.full((1, 2, HEIGHT, WIDTH), 2, np.float32)
            positions[0, axis] = outside
            np.testing.assert_allclose(read(white, positions, 1), share, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1e6))
def test_values_stay_from_0_to_1_wherever_it_is_read(seed: int, reach: float) -> None:
    places = np.random.default_rng(seed).normal(0, reach, (2, 2, HEIGHT, WIDTH))
    for images in (pictures(4), np.ones((4, HEIGHT, WIDTH), np.float32)):
        result = read(images, places.astype(np.float32), 2)
        assert result.min() >= 0
        assert result.max() <= 1


def test_a_last_group_may_be_smaller() -> None:
    images = pictures(5)
    positions = pixels(2)
    positions[1, 1] += 1  # the second warp moves the picture to the left
    result = read(images, positions, 4)
    np.testing.assert_array_equal(result[:4], images[:4])
    np.testing.assert_array_equal(result[4, :, :-1], images[4, :, 1:])
