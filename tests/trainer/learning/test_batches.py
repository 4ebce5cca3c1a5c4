from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.datasets import Split
from mlpserve.model.activations import FloatArray
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.learning.backprop import Batch
from mlpserve.trainer.learning.batches import (
    Batches,
    ShuffledBatches,
    WarpedBatches,
    WholeBatch,
)
from mlpserve.trainer.learning.shuffling import stream
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.warps import WarpSettings

SPEC = InputSpec((2, 3))
NO_WARP = WarpSettings(images_per_warp=64)
STRONG = WarpSettings(rotation_degrees=20, shift_px=0.5, elastic_px=0.3, images_per_warp=7)
Make = Callable[[int, int, int], Batches]


def numbered(count: int) -> Split:
    """Return images that are all of one grey, by which each can be told: its number / count.

    Its number is its class as well.
    """
    numbers = np.arange(count)
    greys = (numbers / count).astype(np.float32)
    return Split(np.broadcast_to(greys[:, None, None], (count, 2, 3)).copy(), numbers)


def shuffled(count: int, batch_size: int, seed: int) -> ShuffledBatches:
    return ShuffledBatches(numbered(count), SPEC, batch_size=batch_size, seed=seed)


def warped(
    count: int,
    batch_size: int,
    seed: int,
    *,
    distortion: WarpSettings = NO_WARP,
    pool: ThreadPool | None = None,
) -> WarpedBatches:
    return WarpedBatches(
        numbered(count),
        SPEC,
        batch_size=batch_size,
        seed=seed,
        settings=lambda _: distortion,
        pool=pool or ThreadPool(1),
    )


def filled(
    batch: Batch, rows: slice | None = None, dtype: type[np.floating] = np.float32
) -> FloatArray:
    """Return the inputs of some rows of a batch, or of all; what was left out is 0."""
    rows = rows or slice(0, len(batch.labels))
    out: FloatArray = np.full((rows.stop - rows.start, 6), np.nan, dtype)
    columns = batch.fill(rows, out)
    if columns is None:
        return out
    inputs = np.zeros_like(out)
    inputs[:, columns] = out[:, : len(columns)]
    return inputs


def numbers_of_epoch(batches: Batches, epoch: int, count: int) -> list[npt.NDArray[np.int64]]:
    """Return the numbers that each batch of an epoch shows, which must be its labels."""
    numbers = []
    for index in range(len(batches)):
        batch = batches.batch(epoch, index)
        shown = np.rint(filled(batch) * count).astype(np.int64)
        np.testing.assert_array_equal(shown, np.repeat(batch.labels[:, None], 6, axis=1))
        numbers.append(batch.labels)
    return numbers


def assert_each_image_is_shown_once(
    batches: Batches, epoch: int, count: int, batch_size: int
) -> None:
    numbers = numbers_of_epoch(batches, epoch, count)
    *full, last = map(len, numbers)
    assert all(size == batch_size for size in full)
    assert last == count - batch_size * len(full)
    assert 0 < last <= batch_size
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(count))


both = pytest.mark.parametrize("make", [shuffled, warped])


@given(
    count=st.integers(1, 80),
    batch_size=st.integers(1, 100),
    epoch=st.integers(0, 10**6),
    seed=st.integers(0, 2**32 - 1),
)
@both
def test_each_image_is_shown_once_an_epoch_with_its_label(
    make: Make, count: int, batch_size: int, epoch: int, seed: int
) -> None:
    batches = make(count, batch_size, seed)
    assert_each_image_is_shown_once(batches, epoch, count, batch_size)


@pytest.mark.parametrize(
    ("count", "batch_size"),
    [(4096, 128), (4097, 128), (9000, 1000), (9000, 4096), (5000, 4097), (5000, 9000), (8193, 1)],
)
def test_each_warped_image_is_too_where_not_all_are_held_at_once(
    count: int, batch_size: int
) -> None:
    assert_each_image_is_shown_once(warped(count, batch_size, 1), 3, count, batch_size)


@both
def test_another_epoch_and_another_seed_have_other_orders(make: Make) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        numbers = numbers_of_epoch(make(60, 7, seed), epoch, 60)
        return [int(number) for number in np.concatenate(numbers)]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6


@given(
    places=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=1, max_size=5),
    batch_size=st.sampled_from([1000, 4096]),
)
@settings(max_examples=20)
@both
def test_a_place_has_the_same_batch_whatever_was_asked_for_before(
    make: Make, places: list[tuple[int, int]], batch_size: int
) -> None:
    used = make(8500, batch_size, 1)
    for epoch, index in places:
        fresh = make(8500, batch_size, 1)
        again, expected = (
            used.batch(epoch, index % len(used)),
            fresh.batch(epoch, index % len(used)),
        )
        np.testing.assert_array_equal(again.labels, expected.labels)
        np.testing.assert_array_equal(filled(again), filled(expected))


@given(first=st.integers(0, 30), second=st.integers(0, 30))
@pytest.mark.parametrize("kind", ["whole", "shuffled", "warped"])
def test_filling_some_rows_gives_what_filling_all_gives_them(
    kind: str, first: int, second: int
) -> None:
    batches: dict[str, Batches] = {
        "whole": WholeBatch(numbered(30), SPEC),
        "shuffled": shuffled(40, 30, 1),
        "warped": warped(40, 30, 1, distortion=STRONG),
    }
    batch = batches[kind].batch(2, 0)
    rows = slice(min(first, second), max(first, second))
    np.testing.assert_array_equal(filled(batch, rows), filled(batch)[rows])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_whole_batch_is_all_images_in_their_order_in_each_epoch(
    dtype: type[np.floating],
) -> None:
    greys = np.random.default_rng(1).integers(0, 256, (20, 2, 3), np.uint8)
    greys[:5, 0, 1] = 0  # a pixel that the first images lack
    images = Split(greys, np.arange(20) % 4)
    batches = WholeBatch(images, SPEC)
    assert len(batches) == 1
    for epoch in (0, 1):
        batch = batches.batch(epoch, 0)
        np.testing.assert_array_equal(batch.labels, images.labels)
        for rows in (slice(0, 20), slice(0, 5), slice(5, 12)):
            found = filled(batch, rows, dtype)
            np.testing.assert_array_equal(found, SPEC.scale(greys[rows], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shuffled_bytes_are_scaled_as_the_network_takes_them(dtype: type[np.floating]) -> None:
    greys = np.arange(20, dtype=np.uint8)[:, None, None] + np.zeros((20, 2, 3), np.uint8)
    batch = ShuffledBatches(Split(greys, np.arange(20)), SPEC, batch_size=20, seed=1).batch(0, 0)
    out = np.empty((20, 6), dtype)
    batch.fill(slice(0, 20), out)
    np.testing.assert_array_equal(out, SPEC.scale(greys[batch.labels], dtype))


@given(seed=st.integers(0, 50), zero=st.sets(st.integers(0, 5)))
@settings(max_examples=30)
def test_pixels_that_a_batch_lacks_are_left_out_and_no_others(seed: int, zero: set[int]) -> None:
    pixels = np.random.default_rng(seed).integers(1, 256, (8, 6), np.uint8)
    pixels[:, list(zero)] = 0
    images = Split(pixels.reshape(8, 2, 3), np.arange(8))
    whole, compact = (
        ShuffledBatches(images, SPEC, batch_size=8, seed=seed, skips_zero_columns=skips).batch(0, 0)
        for skips in (False, True)
    )
    all_columns, some_columns = (np.full((8, 6), np.nan, np.float32) for _ in range(2))
    assert whole.fill(slice(0, 8), all_columns) is None
    columns = compact.fill(slice(0, 8), some_columns)
    assert columns is not None
    assert set(columns) == set(range(6)) - zero
    np.testing.assert_array_equal(some_columns[:, : len(columns)], all_columns[:, columns])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_the_bits_of_warped_images(threads: int) -> None:
    alone = warped(5000, 1000, 1, distortion=STRONG)
    with ThreadPool(threads) as pool:
        shared = warped(5000, 1000, 1, distortion=STRONG, pool=pool)
        for index in range(5):
            one, other = alone.batch(1, index), shared.batch(1, index)
            np.testing.assert_array_equal(one.labels, other.labels)
            np.testing.assert_array_equal(filled(one), filled(other))


def test_images_are_distorted_anew_in_each_epoch_and_as_far_as_it_wants() -> None:
    batches = WarpedBatches(
        numbered(50),
        SPEC,
        batch_size=50,
        seed=1,
        settings=lambda epoch: STRONG if epoch < 2 else NO_WARP,
        pool=ThreadPool(1),
    )
    shown = []
    for epoch in range(4):
        batch = batches.batch(epoch, 0)
        shown.append(filled(batch)[np.argsort(batch.labels)])
    originals = SPEC.scale(numbered(50).images)
    assert not np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], originals)
    np.testing.assert_array_equal(shown[2], originals)
    np.testing.assert_array_equal(shown[3], originals)


def test_neighbours_that_share_a_warp_are_mixed_before_they_are_cut_into_batches() -> None:
    # All images are the same, so those that share a warp stay the same: 8 warps of 512 images.
    image = np.random.default_rng(1).random((1, 2, 3), np.float32)
    images = Split(np.repeat(image, 4096, axis=0), np.zeros(4096, np.int64))
    distortion = WarpSettings(shift_px=1, images_per_warp=512)
    batches = WarpedBatches(
        images, SPEC, batch_size=128, seed=1, settings=lambda _: distortion, pool=ThreadPool(1)
    )
    for index in range(len(batches)):
        assert len(np.unique(filled(batches.batch(0, index)), axis=0)) > 4


def test_each_place_of_a_training_has_a_generator_of_its_own() -> None:
    places = [(1,), (1, 1), (1, 2), (2, 1), (1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 4, 2**31, 1)]
    drawn = {stream(*place).integers(2**63) for place in places}
    assert len(drawn) == len(places)
    assert stream(1, 2, 3).integers(2**63) == stream(1, 2, 3).integers(2**63)
