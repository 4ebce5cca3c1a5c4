from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.datasets import Split
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.fitting import hold_out
from mlpserve.trainer.recipes import FAST


def numbered(count: int) -> Split:
    """Return images that can be told by their grey, and by their label as well."""
    numbers = np.arange(count)
    return Split((numbers / count).astype(np.float32)[:, None], numbers)


@given(count=st.integers(2, 200), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_each_image_is_either_learned_from_or_held_out_the_same_each_time(
    count: int, share: float, seed: int
) -> None:
    recipe = replace(FAST, validation_share=share, seed=seed)
    split = numbered(count)
    expected = round(count * share)
    if not 0 < expected < count:
        with pytest.raises(TrainingError, match=f"validation share: .* of {count} images is"):
            hold_out(split, recipe)
        return
    learned, held = hold_out(split, recipe)
    assert held is not None
    assert len(held) == expected
    np.testing.assert_array_equal(np.sort([*learned.labels, *held.labels]), split.labels)
    for part in (learned, held):
        np.testing.assert_array_equal(part.images, split.images[part.labels])
    again, held_again = hold_out(split, recipe)
    assert held_again is not None
    np.testing.assert_array_equal(again.labels, learned.labels)
    np.testing.assert_array_equal(held_again.labels, held.labels)


def test_another_seed_holds_out_other_images_and_a_share_of_0_none() -> None:
    split = numbered(40)
    _, first = hold_out(split, replace(FAST, seed=1))
    _, other = hold_out(split, replace(FAST, seed=2))
    assert first is not None
    assert other is not None
    assert not np.array_equal(first.images, other.images)
    assert hold_out(split, replace(FAST, validation_share=0)) == (split, None)
