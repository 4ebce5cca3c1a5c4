"""The images and the figure of the benchmark of out-of-distribution scores."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from out_of_distribution import as_mnist, at_the_edge, auroc, scribbles


def test_auroc_is_how_often_a_strange_image_has_the_higher_score_of_two() -> None:
    known = np.array([1.0, 2, 2, 5])
    assert auroc(known, np.array([6.0, 7])) == 1
    assert auroc(known, np.array([0.0])) == 0
    assert auroc(known, known) == 0.5
    assert auroc(known, np.array([2.0, 3])) == pytest.approx((0.5 + 0.75) / 2)


def test_drawings_have_the_size_and_the_place_of_digits() -> None:
    page = Image.new("L", (160, 160))
    ImageDraw.Draw(page).rectangle((10, 100, 30, 140), fill=255)
    placed = as_mnist(page)
    assert placed.shape == (28, 28)
    rows, columns = np.nonzero(placed)
    assert rows.max() - rows.min() == 19
    assert abs(rows.mean() - 13.5) <= 0.5
    assert abs(columns.mean() - 13.5) <= 0.5
    assert not as_mnist(Image.new("L", (160, 160))).any()
    drawn = scribbles(3, np.random.default_rng(1))
    assert drawn.shape == (3, 28, 28)
    assert (drawn.max(axis=(1, 2)) > 100).all()


def test_digits_at_the_edge_touch_two_sides_and_lose_nothing() -> None:
    digits = np.zeros((8, 28, 28), np.uint8)
    digits[:, 10:15, 12:14] = 9
    moved = at_the_edge(digits, np.random.default_rng(1))
    assert (moved.sum(axis=(1, 2)) == digits.sum(axis=(1, 2))).all()
    for image in moved:
        assert image[0].any() or image[-1].any()
        assert image[:, 0].any() or image[:, -1].any()
