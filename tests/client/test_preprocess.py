"""Photographs of digits, made of real and of drawn ones, before and after."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.client import InvalidRequestError, preprocess
from mlpserve.datasets.drawn import draw_digits
from photographs import CONDITIONS, Conditions, accuracies, photograph

Images = npt.NDArray[np.uint8]
DIGITS = draw_digits(60, seed=8)


@pytest.mark.exhaustive
# Drawn digits are harder, and what has learned from their thick strokes errs more with a fine pen.
@pytest.mark.parametrize(("data", "least", "loss"), [("mnist", 90, 6), ("drawn", 85, 15)])
def test_photographs_of_digits_are_classified_nearly_as_well_as_the_digits(
    mnist_folder: Path, data: str, least: float, loss: float
) -> None:
    clean, found = accuracies(data, data_dir=mnist_folder, count=300)
    assert clean > least
    for name, (before, after) in found.items():
        assert after > before, name
        assert after > clean - loss, name


@pytest.fixture(scope="module")
def shapes() -> tuple[Images, Images]:
    """Return a drawn digit of each class, and what it is when it is preprocessed itself."""
    digits: Any = DIGITS.images[[np.flatnonzero(DIGITS.labels == label)[0] for label in range(10)]]
    return digits, preprocess(digits)


def similarity(found: Images, digit: Images) -> float:
    """Return the correlation of two pictures."""
    return float(np.corrcoef(found.reshape(-1), digit.reshape(-1))[0, 1])


@pytest.mark.parametrize("name", CONDITIONS)
def test_what_is_found_in_a_photograph_looks_like_the_digit_that_was_drawn(
    shapes: tuple[Images, Images], name: str
) -> None:
    digits, drawn = shapes  # in the same place and size
    rng = np.random.default_rng(5)
    found = preprocess([photograph(digit, CONDITIONS[name], rng) for digit in digits])
    assert found.shape == (10, 28, 28)
    assert found.dtype == np.uint8
    assert np.median([similarity(*pair) for pair in zip(found, drawn, strict=True)]) > 0.85


def test_it_is_where_and_as_large_as_mnists_digits_are(
    shapes: tuple[Images, Images],
) -> None:
    for found in preprocess([photograph(digit, Conditions(), RNG) for digit in shapes[0]]):
        rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
        mass = found.astype(float)
        centre = (mass.sum(axis=1) @ np.arange(28), mass.sum(axis=0) @ np.arange(28)) / mass.sum()
        np.testing.assert_allclose(centre, 14, atol=1.1)
        assert found.max() == 255
        assert found[0].max() == 0


RNG = np.random.default_rng(6)
PHOTOGRAPH = photograph(DIGITS.images[0].astype(np.uint8), Conditions(light=0.3), RNG)


@pytest.mark.parametrize(
    "form",
    [
        PHOTOGRAPH.astype(np.uint16) * 257,
        (PHOTOGRAPH / 255).astype(np.float32),
        np.dstack([PHOTOGRAPH, np.full(PHOTOGRAPH.shape[:2], 9, np.uint8)]),
        PHOTOGRAPH.tolist(),
    ],
    ids=["uint16", "float", "alpha", "list"],
)
def test_any_form_of_a_picture_gives_the_same(form: Any) -> None:
    form = np.array(form, np.uint8) if isinstance(form, list) else form
    np.testing.assert_allclose(
        preprocess([form])[0].astype(int), preprocess([PHOTOGRAPH])[0].astype(int), atol=2
    )


def test_pictures_of_any_sizes_are_taken_and_one_array_too() -> None:
    grey = PHOTOGRAPH.mean(axis=2).astype(np.uint8)
    found = preprocess([PHOTOGRAPH, grey, grey[:200, :250]], side=14)
    assert found.shape == (3, 14, 14)
    np.testing.assert_array_equal(preprocess(grey[np.newaxis]), preprocess([grey]))


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((1, 1), np.uint8),
        np.full((40, 40), 200, np.uint8),
        np.zeros((2, 300), np.uint8),
        np.tile(np.arange(60, 200, dtype=np.uint8), (100, 1)),
        np.clip(np.random.default_rng(1).normal(180, 3, (90, 70)), 0, 255).astype(np.uint8),
        np.full((30, 30), np.nan),
    ],
    ids=["one-pixel", "blank", "strip", "gradient", "noise", "nan"],
)
def test_a_page_without_a_digit_is_black(picture: npt.NDArray[Any]) -> None:
    with warnings.catch_warnings(action="error"):
        assert preprocess([picture]).max() == 0


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "expected at least one picture, got none"),
        (PHOTOGRAPH[0], r"expected pictures of \(height, width\) .* got shape \(3,\)"),
        (np.zeros((1, 4, 4, 7), np.uint8), "got shape"),
        (np.zeros((1, 4, 4), np.int64), "expected uint8, uint16 or float, got int64"),
        (np.zeros((1, 0, 4), np.uint8), "got shape"),
    ],
    ids=["none", "one", "channels", "int64", "empty"],
)
def test_what_is_no_picture_is_refused(pictures: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        preprocess(pictures)
