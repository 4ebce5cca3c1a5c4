"""Filters of grey pictures, as textbooks have them: windows, connected parts, Otsu's threshold.

Pictures are (height, width); beyond the border they go on with the values at it.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

_BINS: Final = 256


def quadratic_surface(grey: Floats) -> Floats:
    """Return the quadratic surface that is nearest to a picture, in least squares."""
    rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in grey.shape)
    y, x = np.broadcast_arrays(rows[:, np.newaxis], columns)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1).T
    values = grey.reshape(-1)
    weights = np.linalg.lstsq(terms.T @ terms, terms.T @ values, rcond=None)[0]
    surface: Floats = (terms @ weights).reshape(grey.shape)
    return surface


def two_means(values: npt.NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the means of the two classes that Otsu's threshold makes of values from 0 to 1."""
    counts, edges = np.histogram(values, _BINS, (0, 1))
    middles = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = sums / below, (sums[-1] - sums) / above
        between = np.nan_to_num(below * above * (high - low) ** 2)
    best = int(between.argmax())
    return float(np.nan_to_num(low[best])), float(np.nan_to_num(high[best]))


def connected_parts(mask: Mask) -> npt.NDArray[np.int64]:
    """Return a number for each connected part of a mask, neighbours over corners included; 0 off.

    Each pixel takes the largest number around it, and then that of the pixel with this number.
    """
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        around = np.where(mask, largest_around(labels, 3), 0)
        followed = np.concatenate([[0], around.reshape(-1)])[around]
        if (followed == labels).all():
            return labels
        labels = followed


def resampling(before: int, after: int) -> Floats:
    """Return the (after, before) weights of a triangle filter as wide as a pixel of the result."""
    scale = before / after
    reach = max(1.0, scale)
    centres = (np.arange(after) + 0.5) * scale - 0.5
    distances = np.abs(np.arange(before) - centres[:, np.newaxis]) / reach
    weights = np.maximum(0, 1 - distances)
    whole: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return whole


def mean_around(values: npt.NDArray[np.floating[Any]], window: int) -> Floats:
    """Return the mean in a square window around each value."""
    means: npt.NDArray[np.floating[Any]] = values
    for axis in (0, 1):
        padded = _padded(means, window, axis)
        sums = np.cumsum(padded, axis=axis, dtype=np.float64)
        sums = np.insert(sums, 0, 0, axis=axis)
        size = values.shape[axis]
        high = np.take(sums, np.arange(window, window + size), axis=axis)
        low = np.take(sums, np.arange(size), axis=axis)
        means = (high - low) / window
    return means.astype(np.float32)


def largest_around(values: npt.NDArray[Any], window: int) -> npt.NDArray[Any]:
    """Return the largest value in a square window around each."""
    return largest_along(largest_along(values, window, 0), window, 1)


def least_around(values: Floats, window: int) -> Floats:
    """Return the least value in a square window around each."""
    least: Floats = -largest_around(-values, window)
    return least


def largest_along(values: npt.NDArray[Any], window: int, axis: int) -> npt.NDArray[Any]:
    """Return the largest value in a window along one axis, by windows that double in width."""
    padded = np.moveaxis(_padded(values, window, axis), axis, 0)
    width = 1
    while width < window:
        step = min(width, window - width)
        padded = np.maximum(padded[:-step], padded[step:])
        width += step
    return np.moveaxis(padded, 0, axis)


def _padded(values: npt.NDArray[Any], window: int, axis: int) -> npt.NDArray[Any]:
    """Return values with as many more at both ends as a window around the last ones needs."""
    before = (window - 1) // 2
    widths = [(0, 0)] * values.ndim
    widths[axis] = (before, window - 1 - before)
    return np.pad(values, widths, mode="edge")
