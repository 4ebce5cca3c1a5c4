import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlpserve.trainer.report.pictures import (
    NEGATIVE_COLOUR,
    POSITIVE_COLOUR,
    image_uri,
    weights_uri,
)


def opened(uri: str) -> Image.Image:
    """Return a picture as another program reads it."""
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    picture.load()  # checks the checksums
    return picture


def pixels(uri: str, mode: str) -> npt.NDArray[np.uint8]:
    return np.asarray(opened(uri).convert(mode))


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (5, 6, 1), (1, 5, 6)], ids=str)
def test_a_grey_picture_holds_the_image_as_it_is(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    picture = opened(image_uri(image))
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), image.squeeze())


def test_a_float_picture_is_that_of_the_same_bytes() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert image_uri((image / 255).astype(np.float32)) == image_uri(image)


def test_a_coloured_picture_holds_the_image_wherever_its_colours_are() -> None:
    image = np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8)
    picture = opened(image_uri(image))
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), image)
    assert image_uri(np.moveaxis(image, 2, 0)) == image_uri(image)


def test_a_flat_image_is_shown_as_a_square_where_it_can_be_one() -> None:
    assert opened(image_uri(np.zeros(36, np.uint8))).size == (6, 6)
    assert opened(image_uri(np.zeros(7, np.uint8))).size == (7, 1)


def test_a_long_picture_is_made_thick_enough_to_be_seen() -> None:
    image = np.arange(48, dtype=np.uint8)
    shown = pixels(image_uri(image.reshape(1, 48)), "L")
    assert shown.shape == (6, 48)
    assert (shown == image).all()
    assert pixels(image_uri(image.reshape(48, 1)), "L").shape == (48, 6)


def test_a_large_picture_is_made_of_the_means_of_its_parts() -> None:
    # 130 pixels are more than 64, so each 3 become one, and the last one is alone.
    column = np.repeat(np.arange(44, dtype=np.uint8) * 3, 3)[:130]
    column[0] += 3
    shown = pixels(image_uri(np.tile(column[:, np.newaxis], (1, 100))), "L")
    assert shown.shape == (44, 34)
    assert shown[:, 0].tolist() == [1, *(3 * index for index in range(1, 44))]


def test_weights_go_from_orange_through_nothing_to_blue() -> None:
    weights: npt.NDArray[Any] = np.array([-9.0, -1.0, 0.0, 0.5, 1.0, 1.0])
    shown = pixels(weights_uri(weights, (2, 3), largest=1.0), "RGBA")
    opacities = shown[:, :, 3].ravel()
    assert opacities[[0, 1, 4, 5]].tolist() == [255] * 4
    assert opacities[2] == 0
    assert opacities[3] == pytest.approx(255 / 2, abs=5)  # to within a step
    assert tuple(shown[0, 0, :3]) == NEGATIVE_COLOUR
    assert tuple(shown[1, 1, :3]) == POSITIVE_COLOUR


def test_weights_of_colours_are_summed_in_either_order() -> None:
    weights = np.random.default_rng(1).normal(size=(2, 4, 3))
    summed = weights_uri(weights.sum(axis=2).ravel(), (2, 4), largest=2.0)
    assert weights_uri(weights.ravel(), (2, 4, 3), largest=2.0) == summed
    assert weights_uri(np.moveaxis(weights, 2, 0).ravel(), (3, 2, 4), largest=2.0) == summed
