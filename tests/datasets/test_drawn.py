import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.datasets.dataset import DatasetError, Split
from mlpserve.datasets.drawn import (
    TEST_COUNT,
    TRAIN_COUNT,
    draw_digits,
    load_drawn,
    load_drawn_test,
)

COUNT = 600  # more than are drawn at once


@pytest.fixture(scope="module")
def digits() -> Split:
    return draw_digits(COUNT, seed=7)


def test_images_are_28x28_bytes_and_labels_are_integers(digits: Split) -> None:
    assert digits.images.shape == (COUNT, 28, 28)
    assert digits.images.dtype == np.uint8
    assert digits.labels.shape == (COUNT,)
    assert digits.labels.dtype == np.int64


def test_same_seed_draws_the_same_bytes(digits: Split) -> None:
    again = draw_digits(COUNT, seed=7)
    assert again.images.tobytes() == digits.images.tobytes()
    assert again.labels.tobytes() == digits.labels.tobytes()


def test_other_seed_draws_other_digits_in_another_order(digits: Split) -> None:
    other = draw_digits(COUNT, seed=8)
    assert not np.array_equal(other.labels, digits.labels)
    assert not np.any(np.all(other.images == digits.images, axis=(1, 2)))


def test_no_two_images_are_alike(digits: Split) -> None:
    assert len(np.unique(digits.images.reshape(COUNT, -1), axis=0)) == COUNT


@pytest.mark.parametrize("count", [1, 10, 603])
def test_every_digit_is_drawn_as_often_as_count_allows(count: int) -> None:
    labels = draw_digits(count, seed=7).labels
    assert len(labels) == count
    assert np.ptp(np.bincount(labels, minlength=10)) <= 1


def test_digits_come_in_random_order(digits: Split) -> None:
    assert len(np.unique(digits.labels[:50])) == 10
    assert np.any(np.diff(digits.labels) < 0)
    assert not np.array_equal(digits.labels[:10], digits.labels[10:20])


def test_ink_is_centred_as_in_mnist(digits: Split) -> None:
    ink = digits.images.astype(np.float64)
    positions = np.arange(28)
    masses = ink.sum(axis=(1, 2))
    rows = ink.sum(axis=2) @ positions / masses
    columns = ink.sum(axis=1) @ positions / masses
    # MNIST moves by whole pixels, so half a pixel off is as near as it comes.
    np.testing.assert_allclose(rows, 14, atol=0.501)
    np.testing.assert_allclose(columns, 14, atol=0.501)
    np.testing.assert_allclose([rows.mean(), columns.mean()], 14, atol=0.05)


def test_ink_spans_twenty_pixels_as_in_mnist(digits: Split) -> None:
    heights = _extents(digits.images.max(axis=2) > 128)
    widths = _extents(digits.images.max(axis=1) > 128)
    spans = np.maximum(heights, widths)
    assert np.mean(np.abs(spans - 20) <= 2) > 0.95  # rough edges move single pixels
    np.testing.assert_allclose(np.median(spans), 20, atol=1)


def test_ink_is_light_on_a_dark_ground(digits: Split) -> None:
    assert np.all(digits.images.max(axis=(1, 2)) > 200)
    assert 0.1 < np.mean(digits.images > 0) < 0.3
    assert not digits.images[:, [0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_even_the_boldest_pen_leaves_the_ground_dark() -> None:
    # A field too weak for its logarithm once turned the whole ground grey, in one image of 1000.
    images = draw_digits(5000, seed=3).images
    assert np.mean(images > 0, axis=(1, 2)).max() < 0.6


def test_edges_are_soft(digits: Split) -> None:
    greys = np.mean((digits.images > 0) & (digits.images < 255))
    assert greys > 0.3 * np.mean(digits.images > 0)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_refused(count: int) -> None:
    with pytest.raises(DatasetError, match=f"count: expected at least 1 .* got {count}"):
        draw_digits(count, seed=1)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(DatasetError, match="seed: expected at least 0, got -1"):
        draw_digits(1, seed=-1)


@pytest.mark.exhaustive
def test_data_set_is_the_same_every_time_and_no_test_image_is_a_training_image() -> None:
    dataset = load_drawn()
    assert dataset.name == "drawn"
    assert dataset.class_labels == tuple("0123456789")
    assert (len(dataset.train), len(dataset.test)) == (TRAIN_COUNT, TEST_COUNT)
    training_images = {image.tobytes() for image in dataset.train.images}
    assert not any(image.tobytes() in training_images for image in dataset.test.images)
    assert load_drawn_test().images.tobytes() == dataset.test.images.tobytes()


def _extents(inked: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return how many pixels lie from the first to the last inked one of each row."""
    positions = np.where(inked, np.arange(inked.shape[1]), -1)
    extents: npt.NDArray[np.intp] = positions.max(axis=1) - inked.argmax(axis=1) + 1
    return extents
