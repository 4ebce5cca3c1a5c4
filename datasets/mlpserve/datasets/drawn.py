"""Handwritten digits drawn by our own code: the data set that needs no file and no network.

    glyph -> hand strays -> points on the strokes -> warp -> slant, turn, width -> box -> pixels

Each image takes a glyph from ``strokes``, distorts it as hands differ, sizes and places it as MNIST
does, and has ``rendering`` draw it. Knows MNIST's geometry, but not one of its images.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import Dataset, DatasetError, Labels, Split
from mlpserve.datasets.rendering import render, step_lengths
from mlpserve.datasets.strokes import GLYPH_SIZE, GLYPHS, POINTS_PER_GLYPH, Glyph

FloatArray: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Greys: TypeAlias = npt.NDArray[np.uint8]

TRAIN_COUNT = 50_000
TEST_COUNT = 10_000
TRAIN_SEED = 1
TEST_SEED = 7

# MNIST's geometry: the ink just fits a box, which is then moved by whole pixels until the centre of
# mass is in the pixel of this index, down and across.
SIDE_PX = 28
BOX_PX = 20
CENTRE_PX = 14

# How differently people write. Spreads are standard deviations, of the logarithm for medians.
STRAY_SPREAD = 0.08 * GLYPH_SIZE
WAVE_COUNT = 4
WAVE_LENGTHS = (0.8 * GLYPH_SIZE, 1.5 * GLYPH_SIZE)
WAVE_PUSH_SPREAD = 0.045  # as a part of the wave's length
WIDTH_MEDIAN, WIDTH_SPREAD = 1.05, 0.2
SLANT_MEAN, SLANT_SPREAD = 0.15, 0.23  # to the right for each unit of height
TURN_SPREAD = 0.11  # radians
PEN_RADIUS_MEDIAN_PX, PEN_RADIUS_SPREAD = 1.25, 0.4
PEN_RADIUS_LIMITS_PX = (0.5, 3.2)
MAX_INKED_PART = 0.6  # of the box

# The formula in rendering makes the end of a line round: it reaches less far than the sides do. By
# the full difference, though, the sides would leave the box. Half a pixel more or less costs a
# network several percent on MNIST.
ROUND_END_PX = 0.2

# Bounds the memory to some 15 MB; larger parts would also be slower, for want of cache.
IMAGES_AT_ONCE = 250


def load_drawn() -> Dataset:
    """Draw the data set; takes a few seconds, and gives the same every time."""
    return Dataset(
        name="drawn",
        class_labels=tuple(str(digit) for digit in range(len(GLYPHS))),
        train=draw_digits(TRAIN_COUNT, seed=TRAIN_SEED),
        test=load_drawn_test(),
    )


def load_drawn_test() -> Split:
    """Draw only the test split of ``load_drawn``."""
    return draw_digits(TEST_COUNT, seed=TEST_SEED)


def draw_digits(count: int, *, seed: int) -> Split:
    """Draw digits that look handwritten.

    The same count and seed give the same bytes wherever NumPy computes alike; another processor may
    round a grey value differently by one.

    Args:
        count: How many images, at least 1.
        seed: At least 0. Other seeds give other digits by other hands.

    Returns:
        (count, 28, 28) uint8 images, light on dark, of the digits 0 to 9 in random order, each as
        often as the others, or once more where ``count`` is no multiple of 10.

    Raises:
        DatasetError: ``count`` or ``seed`` is too small.
    """
    if count < 1:
        raise DatasetError(f"count: expected at least 1 digit to draw, got {count}")
    if seed < 0:
        raise DatasetError(f"seed: expected at least 0, got {seed}")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(GLYPHS))
    images = np.empty((count, SIDE_PX, SIDE_PX), np.uint8)
    for start in range(0, count, IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        images[part] = _draw(labels[part], rng)
    return Split(images=images, labels=labels)


def _draw(labels: Labels, rng: np.random.Generator) -> Greys:
    points, pen_down = _write(labels, rng)
    points = _slant_and_turn(_warp(points, rng), rng)
    radii_px = _choose_pens(points, pen_down, rng)
    points = _fit_into_box(points, radii_px)
    return _centre_by_mass(render(points, pen_down, radii_px, side_px=SIDE_PX, rng=rng))


def _write(labels: Labels, rng: np.random.Generator) -> tuple[FloatArray, Mask]:
    """Return (N, P, 2) points along each digit's strokes and (N, P - 1), where the pen is down."""
    points = np.empty((len(labels), POINTS_PER_GLYPH, 2), np.float32)
    pen_down = np.empty((len(labels), POINTS_PER_GLYPH - 1), np.bool_)
    for digit, glyphs in enumerate(GLYPHS):
        chosen = _choose(glyphs, int(np.count_nonzero(labels == digit)), rng)
        for index, glyph in enumerate(glyphs):
            where = np.flatnonzero(labels == digit)[chosen == index]
            noise = rng.standard_normal((len(where), *glyph.control_points.shape), np.float32)
            strayed = glyph.control_points + np.float32(STRAY_SPREAD) * (glyph.drift @ noise)
            points[where] = glyph.tracing @ strayed
            pen_down[where] = glyph.pen_down
    return points, pen_down


def _choose(
    glyphs: tuple[Glyph, ...], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    shares = np.array([glyph.share for glyph in glyphs])
    return rng.choice(len(glyphs), size=count, p=shares / shares.sum())


def _warp(points: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Bend each drawing as if it were on rubber.

    A few plane waves run over the plane in random directions; point p is pushed by

        sum_w push_w sin(wave_w . p + phase_w).

    A wave stretches what it moves by its push times its wave number, 2 pi / length. Pushes grow
    with the length, therefore: long waves move much, and short ones make no creases.
    """
    count = len(points)
    directions = rng.uniform(0, 2 * np.pi, (count, WAVE_COUNT))
    lengths = rng.uniform(*WAVE_LENGTHS, (count, WAVE_COUNT))
    phases = rng.uniform(0, 2 * np.pi, (count, 1, WAVE_COUNT)).astype(np.float32)
    waves = np.stack([np.cos(directions), np.sin(directions)], axis=1) / lengths[:, None]
    waves = (2 * np.pi * waves).astype(np.float32)  # (N, 2, WAVE_COUNT)
    pushes = rng.normal(0, WAVE_PUSH_SPREAD, (count, WAVE_COUNT, 2)) * lengths[:, :, None]
    heights: FloatArray = np.sin(points @ waves + phases)  # (N, P, WAVE_COUNT)
    return points + heights @ pushes.astype(np.float32)


def _slant_and_turn(points: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Widen, slant and turn each drawing, by one matrix for each.

    As points are rows here, the matrix stands on the right. Its first row is where a step to the
    right goes, its second where a step down goes; down is left where writing slants to the right.
    """
    count = len(points)
    widths = _log_normal(WIDTH_MEDIAN, WIDTH_SPREAD, count, rng)
    slants = rng.normal(SLANT_MEAN, SLANT_SPREAD, count)
    turns = rng.normal(0, TURN_SPREAD, count)
    cosines, sines = np.cos(turns), np.sin(turns)
    rows = [
        [widths * cosines, widths * sines],
        [-slants * cosines - sines, -slants * sines + cosines],
    ]
    return points @ np.array(rows, np.float32).transpose(2, 0, 1)


def _choose_pens(points: FloatArray, pen_down: Mask, rng: np.random.Generator) -> FloatArray:
    """Return (N,) radii of pens, none so wide that its ink would fill the rings of a digit.

    The ink covers about the line's length times its width: a 1 may be bold, an 8 less so.
    """
    lengths = (step_lengths(points) * pen_down).sum(axis=1)
    lengths_px = lengths * BOX_PX / np.ptp(points, axis=1).max(axis=1)
    thinnest_px, boldest_px = PEN_RADIUS_LIMITS_PX
    widest_px = np.minimum(MAX_INKED_PART * BOX_PX**2 / (2 * lengths_px), boldest_px)
    radii_px = _log_normal(PEN_RADIUS_MEDIAN_PX, PEN_RADIUS_SPREAD, len(points), rng)
    fitting_px: FloatArray = np.clip(radii_px, thinnest_px, widest_px)
    return fitting_px


def _fit_into_box(points: FloatArray, radii_px: FloatArray) -> FloatArray:
    """Scale each drawing so that its ink fills the box in height or width; put it in the middle."""
    margins_px = (radii_px - np.float32(ROUND_END_PX))[:, None, None]
    corners = points.min(axis=1, keepdims=True)
    extents = points.max(axis=1, keepdims=True) - corners  # (N, 1, 2)
    scales = (BOX_PX - 2 * margins_px) / extents.max(axis=2, keepdims=True)
    sizes_px = extents * scales + 2 * margins_px
    # Ink begins where a pixel does, as in MNIST: an upright edge is not smeared over two pixels.
    corners_px: FloatArray = np.rint((SIDE_PX - sizes_px) / 2)
    placed: FloatArray = (points - corners) * scales + margins_px + corners_px
    return placed


def _centre_by_mass(images: Greys) -> Greys:
    """Move each image by whole pixels until its centre of mass is nearest to pixel CENTRE_PX."""
    ink = images.astype(np.float32)
    masses = ink.sum(axis=(1, 2))
    pixels = np.arange(SIDE_PX, dtype=np.float32)
    rows = np.rint(ink.sum(axis=2) @ pixels / masses).astype(np.intp)
    columns = np.rint(ink.sum(axis=1) @ pixels / masses).astype(np.intp)
    # With a frame of CENTRE_PX around, the window whose centre is at pixel r begins just there.
    framed = np.pad(images, ((0, 0), (CENTRE_PX, CENTRE_PX), (CENTRE_PX, CENTRE_PX)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (SIDE_PX, SIDE_PX), axis=(1, 2))
    centred: Greys = windows[np.arange(len(images)), rows, columns]
    return centred


def _log_normal(median: float, spread: float, count: int, rng: np.random.Generator) -> FloatArray:
    """Return (count,) positive numbers whose logarithm is normally distributed."""
    return (median * np.exp(rng.normal(0, spread, count))).astype(np.float32)
