from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.datasets import DatasetError, Split
from mlpserve.datasets.dataset import Images
from mlpserve.datasets.disk_images import DiskImages
from mlpserve.trainer.learning.shuffling import ShuffledImages, Sizes, stream

IMAGE_BYTES = 8


def in_memory(count: int) -> Split:
    """Return images that can be told apart; an image's number is its class as well."""
    numbers = np.arange(count)
    return Split(numbers.astype("<i8").view(np.uint8).reshape(count, 2, 4), numbers)


def on_disk(split: Split, path: Path) -> Split:
    path.write_bytes(split.images.tobytes())
    images = DiskImages(
        path,
        offset=0,
        shape=split.images.shape,
        dtype=split.images.dtype,
    )
    return Split(cast("Images", images), split.labels)


def windows_of(images: int, block: int) -> Sizes:
    return Sizes(whole=0, window=images * IMAGE_BYTES, block=block * IMAGE_BYTES)


def shown(images: ShuffledImages, epoch: int, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the images of a part of an epoch, which must be their labels."""
    shuffled = images.at(epoch, start, stop)
    numbers = shuffled.take(slice(0, stop - start)).reshape(-1, IMAGE_BYTES).view("<i8")[:, 0]
    np.testing.assert_array_equal(numbers, shuffled.labels)
    return shuffled.labels


def order(images: ShuffledImages, epoch: int, count: int, unit: int) -> npt.NDArray[np.int64]:
    parts = [shown(images, epoch, start, start + unit) for start in range(0, count, unit)]
    return np.concatenate(parts)


@given(
    count=st.integers(1, 120),
    unit=st.integers(1, 20),
    sizes=st.builds(windows_of, st.integers(1, 60), st.integers(1, 30)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_each_image_is_shown_once_an_epoch_alike_in_memory_and_on_disk(
    count: int,
    unit: int,
    sizes: Sizes,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    split = in_memory(count)
    stored = on_disk(split, tmp_path_factory.mktemp("shuffled") / "images")
    one, other = (
        ShuffledImages(each, seed=seed, unit=unit, sizes=sizes) for each in (split, stored)
    )
    for epoch in (0, 1):
        found = order(one, epoch, count, unit)
        np.testing.assert_array_equal(np.sort(found), np.arange(count))
        np.testing.assert_array_equal(order(other, epoch, count, unit), found)


def test_a_small_set_is_shuffled_whole_in_the_order_of_earlier_releases() -> None:
    images = ShuffledImages(in_memory(500), seed=7, unit=64)
    for epoch in (0, 3):
        expected = np.random.default_rng((7, 1, epoch)).permutation(500)
        np.testing.assert_array_equal(order(images, epoch, 500, 64), expected)


def test_a_place_shows_the_same_whatever_was_asked_for_before(tmp_path: Path) -> None:
    split = on_disk(in_memory(300), tmp_path / "images")
    used = ShuffledImages(split, seed=1, unit=10, sizes=windows_of(60, 4))
    for epoch, start in [(0, 0), (0, 60), (0, 250), (1, 60), (0, 70), (0, 120), (0, 120), (0, 0)]:
        fresh = ShuffledImages(split, seed=1, unit=10, sizes=windows_of(60, 4))
        expected = shown(fresh, epoch, start, start + 10)
        np.testing.assert_array_equal(shown(used, epoch, start, start + 10), expected)


def test_another_epoch_and_another_seed_have_other_orders() -> None:
    orders = {
        tuple(
            order(
                ShuffledImages(in_memory(100), seed=seed, unit=10, sizes=windows_of(40, 5)),
                epoch,
                100,
                10,
            ).tolist()
        )
        for seed in (1, 2)
        for epoch in (0, 1, 2)
    }
    assert len(orders) == 6


def test_a_window_of_a_set_sorted_by_class_has_all_classes_about_alike() -> None:
    # The proportions of the real thing: 512 blocks a window, 58 windows; here, of fewer images.
    count, block, window = 58 * 512 * 4, 4, 512 * 4
    images = ShuffledImages(in_memory(count), seed=1, unit=128, sizes=windows_of(window, block))
    for start in range(0, count, window):
        labels = np.concatenate(
            [images.at(0, start + i, start + i + 128).labels for i in range(0, window, 128)]
        )
        shares = np.bincount(labels * 10 // count, minlength=10) / window
        assert shares.min() > 0.04
        assert shares.max() < 0.16
    batch = images.at(0, 0, 128).labels
    assert len(np.unique(batch // block)) > 100  # neighbours have been parted


def test_what_cannot_be_read_ahead_is_told_when_it_is_asked_for(tmp_path: Path) -> None:
    split = on_disk(in_memory(100), tmp_path / "images")
    images = ShuffledImages(split, seed=1, unit=10, sizes=windows_of(50, 50))
    with (tmp_path / "images").open("r+b") as file:
        file.truncate(50 * IMAGE_BYTES)
    # Of the two windows one is the block that is left, whichever comes first.
    begins_well = stream(1, 6, 0).permutation(2)[0] == 0
    if begins_well:
        images.at(0, 0, 10)
    with pytest.raises(DatasetError, match="the file ends there"):
        images.at(0, 50 if begins_well else 0, 60)
