"""Rendering of pen lines as grey images: light ink on a dark ground, soft at the edge.

Knows pixels and ink, not what the lines mean.

A line is many short straight steps. Measuring the distance from each pixel to each step would cost
pixels x steps per image. A Gaussian is cheaper, for it is a product of one function of x and one of
y. With g(u) = exp(-u^2 / 2 s^2), and step k of length w_k with its middle at (x_k, y_k), the field

    F(x, y) = sum_k g(y - y_k) w_k g(x - x_k)

at all pixels is one matrix product, (rows, steps) @ (steps, columns). Beside a straight line the
sum is nearly an integral along it, which at distance d comes to

    F = s sqrt(2 pi) exp(-d^2 / 2 s^2), and so d = s sqrt(-2 ln(F / (s sqrt(2 pi)))).

Thus the field gives the distance back. Where lines meet or turn sharply F is larger, d smaller, and
the corner fills with ink, as on paper. Ink is full well inside the pen's radius and fades over the
width of the edge, half of it on either side:

    intensity = (radius - d) / edge + 1/2, kept from 0 to 1.

No ink ends in a perfect line on paper: d is made a little larger here and smaller there.
"""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]

BLUR_PX = 0.65
"""s above. Larger fills corners more; below 0.6 of a step's length, steps would show as beads."""

EDGE_PX = 1.0
"""Over how much the ink fades; one pixel is the sharpest without stairs."""

ROUGHEST_PX = 0.6
"""By how much, as a standard deviation, the distances vary on the roughest paper."""

FULL_INTENSITY = 255

# The logarithm of 0 is avoided. It makes 7 s the largest distance; no ink reaches so far.
_MIN_FIELD = 1e-11


def render(
    points: FloatArray,
    pen_down: npt.NDArray[np.bool_],
    radii_px: FloatArray,
    *,
    side_px: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Return square images of lines, one pen width for each image.

    Args:
        points: (N, P, 2) x and y in pixels, from the outer corner of the image's first pixel. Along
            a line the distance to the next should be at most about BLUR_PX / 0.6.
        pen_down: (N, P - 1) whether the step from a point to the next draws.
        radii_px: (N,) half the width of the pen, at most 5 BLUR_PX.
        side_px: Width and height of the images.
        rng: Source of the rough edges.

    Returns:
        (N, side_px, side_px) from 0, no ink, to 255, full ink.
    """
    distances = _distances(points, pen_down, side_px)
    distances += _grain(len(points), side_px, rng)
    intensities = (radii_px[:, None, None] - distances) / np.float32(EDGE_PX) + np.float32(0.5)
    greys: FloatArray = np.rint(np.clip(intensities, 0, 1) * FULL_INTENSITY)
    return greys.astype(np.uint8)


def step_lengths(points: FloatArray) -> FloatArray:
    """Return the (N, P - 1) distances from each of (N, P, 2) points to the next."""
    lengths: FloatArray = np.sqrt(np.square(np.diff(points, axis=1)).sum(axis=2))
    return lengths


def _distances(points: FloatArray, pen_down: npt.NDArray[np.bool_], side_px: int) -> FloatArray:
    """Return how far each pixel is from the line, as derived above: (N, side_px, side_px)."""
    lengths = step_lengths(points) * pen_down  # (N, steps)
    middles = ((points[:, :-1] + points[:, 1:]) / 2).transpose(2, 0, 1)  # (2, N, steps)
    pixels = np.arange(side_px, dtype=np.float32) + np.float32(0.5)  # where their centres are
    offsets = pixels[:, None] - middles[:, :, None, :]  # (2, N, side_px, steps)
    across, down = np.exp(np.square(offsets) * np.float32(-0.5 / BLUR_PX**2))
    field = (down * lengths[:, None, :]) @ across.transpose(0, 2, 1)  # (N, rows, columns)
    field *= np.float32(1 / (BLUR_PX * math.sqrt(2 * math.pi)))
    # Where lines meet the field may exceed that of a single one: the distance is then 0.
    logarithms = np.log(np.clip(field, _MIN_FIELD, 1))
    distances: FloatArray = np.sqrt(logarithms * np.float32(-2 * BLUR_PX**2))
    return distances


def _grain(count: int, side_px: int, rng: np.random.Generator) -> FloatArray:
    """Return (count, side_px, side_px) noise in which neighbours are alike, in pixels of distance.

    Each value is half the sum of the four independent ones at its pixel's corners, which keeps the
    variance. Papers differ from smooth to ROUGHEST_PX.
    """
    corners = rng.standard_normal((count, side_px + 1, side_px + 1), np.float32)
    rows = corners[:, :-1] + corners[:, 1:]
    grain = (rows[:, :, :-1] + rows[:, :, 1:]) * np.float32(0.5)
    return grain * rng.uniform(0, ROUGHEST_PX, (count, 1, 1)).astype(np.float32)
