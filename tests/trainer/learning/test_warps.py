from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.resampling import FloatArray, resample
from mlpserve.trainer.learning.warps import (
    WarpSettings,
    affine_positions,
    linear_maps,
    random_positions,
    warp,
)

STRONG = WarpSettings(
    rotation_degrees=15, log_scale=0.15, shear=0.15, shift_px=1, elastic_px=1.2, images_per_warp=4
)


def pictures(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, height, width), np.uint8)


def warped(images: npt.NDArray[Any], settings: WarpSettings, seed: int = 1) -> FloatArray:
    out = np.full((len(images), images[0].size), np.nan, np.float32)
    warp(images, settings, np.random.default_rng(seed), out=out)
    return out


def mapped(
    image: npt.NDArray[np.uint8],
    *,
    degrees: float = 0,
    log_scales: tuple[float, float] = (0, 0),
    shear: float = 0,
    shift_px: tuple[float, float] = (0, 0),
) -> FloatArray:
    maps = linear_maps(
        np.array([degrees], np.float32),
        log_scales=np.array([log_scales], np.float32),
        shears=np.array([shear], np.float32),
    )
    height, width = image.shape
    shifts_px = np.array([shift_px], np.float32)
    positions = affine_positions(maps, shifts_px, height=height, width=width)
    out = np.empty((1, image.size), np.float32)
    resample(image[None], positions, images_per_warp=1, out=out)
    return out.reshape(image.shape) * 255


@pytest.mark.parametrize("shape", [(28, 28), (5, 9)])
def test_settings_of_0_change_nothing(shape: tuple[int, int]) -> None:
    images = pictures(50, *shape)
    expected = np.divide(images, 255, dtype=np.float32).reshape(50, -1)
    np.testing.assert_array_equal(warped(images, WarpSettings()), expected)


@pytest.mark.parametrize("rows", [-3, 0, 2])
@pytest.mark.parametrize("columns", [-1, 0, 4])
def test_a_shift_by_whole_pixels_rolls_and_leaves_black_behind(rows: int, columns: int) -> None:
    (image,) = pictures(1, 12, 9)
    framed = np.pad(image, 4)
    expected = np.roll(framed, (-rows, -columns), axis=(0, 1))[4:-4, 4:-4]
    np.testing.assert_allclose(mapped(image, shift_px=(rows, columns)), expected, rtol=1e-6)


@pytest.mark.parametrize("side_px", [8, 9])
@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_a_quarter_turn_is_that_of_numpy(side_px: int, quarters: int) -> None:
    (image,) = pictures(1, side_px, side_px)
    turned = mapped(image, degrees=90 * quarters)
    np.testing.assert_allclose(turned, np.rot90(image, quarters), atol=1e-3)


def test_half_the_size_keeps_every_other_pixel() -> None:
    (image,) = pictures(1, 9, 9)
    small = mapped(image, log_scales=(np.log(2), 0))
    np.testing.assert_allclose(small[2:7], image[::2], atol=1e-3)
    assert not small[[0, 1, 7, 8]].any()


def test_a_shear_of_1_moves_each_row_by_one_more_pixel() -> None:
    (image,) = pictures(1, 9, 9)
    slanted = mapped(image, shear=1)
    for row in range(9):
        expected = np.roll(np.pad(image[row], 4), 4 - row)[4:-4]
        np.testing.assert_allclose(slanted[row], expected, atol=1e-3)


@given(
    settings=st.builds(
        WarpSettings,
        rotation_degrees=st.floats(0, 180),
        log_scale=st.floats(0, 3),
        shear=st.floats(0, 10),
        shift_px=st.floats(0, 1e4),
        elastic_px=st.floats(0, 1e4),
        elastic_smoothness_px=st.floats(0.5, 1e4),
        images_per_warp=st.integers(1, 40),
    ),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
)
def test_values_stay_from_0_to_1(settings: WarpSettings, seed: int, count: int) -> None:
    result = warped(pictures(count, 6, 7), settings, seed)
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_seed_gives_the_same_bits_each_time_and_another_seed_others() -> None:
    images = pictures(100, 28, 28)
    first = warped(images, STRONG)
    assert warped(images, STRONG).tobytes() == first.tobytes()
    assert not np.any(np.all(warped(images, STRONG, seed=2) == first, axis=1))


def test_two_threads_at_once_do_not_disturb_each_other() -> None:
    images = pictures(2000, 28, 28)
    alone = [warped(images, STRONG, seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda seed: warped(images, STRONG, seed), range(4)))
    np.testing.assert_array_equal(together, alone)


def test_images_of_a_group_share_a_warp_and_groups_differ() -> None:
    images = np.repeat(pictures(1, 28, 28), 200, axis=0)
    groups = warped(images, STRONG).reshape(50, 4, -1)
    assert np.all(groups == groups[:, :1])
    assert len(np.unique(groups[:, 0], axis=0)) == 50


def test_bytes_and_floats_come_out_alike() -> None:
    images = pictures(30, 28, 28)
    as_floats = np.divide(images, 255, dtype=np.float32)
    np.testing.assert_array_equal(warped(as_floats, STRONG), warped(images, STRONG))


def test_values_may_be_written_into_rows_of_a_larger_buffer() -> None:
    images = pictures(10, 28, 28)
    buffer = np.zeros((30, 784), np.float32)
    warp(images, STRONG, np.random.default_rng(1), out=buffer[10:20])
    np.testing.assert_array_equal(buffer[10:20], warped(images, STRONG))
    assert not buffer[:10].any()
    assert not buffer[20:].any()


@pytest.mark.parametrize("smoothness_px", [1, 4, 20])
def test_elastic_displacements_have_the_standard_deviation_that_was_asked_for(
    smoothness_px: float,
) -> None:
    settings = WarpSettings(elastic_px=1.2, elastic_smoothness_px=smoothness_px)
    rng = np.random.default_rng(1)
    positions = random_positions(8000, settings, rng, height=20, width=16)
    displacements = positions - np.indices((20, 16), np.float32)
    np.testing.assert_allclose(displacements.mean(axis=0), 0, atol=0.07)
    np.testing.assert_allclose(displacements.std(axis=0), 1.2, rtol=0.04)


def test_elastic_displacements_are_alike_as_white_noise_smoothed_with_the_gaussian_is() -> None:
    # The correlation of smoothed noise at distance d is exp(-d^2 / 4 sigma^2).
    settings = WarpSettings(elastic_px=1, elastic_smoothness_px=4)
    rng = np.random.default_rng(1)
    positions = random_positions(8000, settings, rng, height=28, width=28)
    columns = (positions - np.indices((28, 28), np.float32))[:, 1]
    for distance in (1, 4, 8):
        measured = np.mean(columns[:, 14, 6] * columns[:, 14, 6 + distance])
        assert measured == pytest.approx(np.exp(-(distance**2) / 64), abs=0.05)


def test_limits_are_those_of_the_settings() -> None:
    shifted = random_positions(
        2000, WarpSettings(shift_px=1.5), np.random.default_rng(1), height=3, width=3
    )
    shifts_px = (shifted - np.indices((3, 3), np.float32))[:, :, 0, 0]
    assert 1.49 < shifts_px.max() <= 1.5
    assert -1.5 <= shifts_px.min() < -1.49


def test_scaled_settings_distort_in_the_same_manner_but_less_far() -> None:
    half = STRONG.scaled(0.5)
    assert half == WarpSettings(
        rotation_degrees=7.5,
        log_scale=0.075,
        shear=0.075,
        shift_px=0.5,
        elastic_px=0.6,
        images_per_warp=4,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rotation_degrees", -1),
        ("rotation_degrees", float("nan")),
        ("log_scale", 3.5),
        ("shear", float("inf")),
        ("shift_px", -0.1),
        ("elastic_px", 1e5),
        ("elastic_smoothness_px", -1),
        ("images_per_warp", 0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    changes: dict[str, Any] = {field: value}
    with pytest.raises(TrainingError, match=f"{field}: expected .* got {value}"):
        WarpSettings(**changes)


def test_noise_finer_than_half_a_pixel_is_refused_only_if_there_is_any() -> None:
    WarpSettings(elastic_smoothness_px=0)
    with pytest.raises(TrainingError, match="elastic_smoothness_px: expected at least 0.5"):
        WarpSettings(elastic_px=1, elastic_smoothness_px=0.4)
