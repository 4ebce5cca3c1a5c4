"""Warps, random distortions of images: other pictures that mean the same, to learn more from.

Knows the geometry and its chances, not what the images show, nor how they are read.

A warp says for each pixel of the result where to read the image. With o = (row, column) counted
from the centre c of the image, it reads at

    c + A o + t + e(o),        A = R(angle) S diag(exp(s_row), exp(s_column)),

where R turns, S = (1, 0; shear, 1) slants, the diagonal stretches, t shifts and e is elastic.
Angle, shear, s and t are uniform between a limit and its negative. Reading further out makes the
picture smaller, so A is the inverse of what happens to the picture; for the law of chance it is
all one.

The elastic part is smooth noise, with standard deviation a at each pixel:

    e(row, column) = a sum_jk z_jk f_j(row) f_k(column),        z_jk standard normal,
    f_j(x) = g(x - c_j) / sqrt(sum_i g(x - c_i)^2),             g(x) = exp(-x^2 / 2 sigma^2),

for the variance of the sum is a^2 sum_j f_j(row)^2 sum_k f_k(column)^2 = a^2. It is white noise
smoothed with a Gaussian of width sigma, but needs a normal number only every 1.25 sigma or less,
not at each pixel: with the centres c_j so close, the sum is smooth between them. A matrix product
on either side of z gives the field.
Source of the elastic part: Simard, Steinkraus and Platt, Best Practices for Convolutional Neural
Networks Applied to Visual Document Analysis (2003), section 2.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.inputs import BYTES_OR_SHARES, InputSpec
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.resampling import FloatArray, resample

_MAX: Final = {
    "rotation_degrees": 180.0,
    "log_scale": 3.0,
    "shear": 10.0,
    "shift_px": 1e4,
    "elastic_px": 1e4,
    "elastic_smoothness_px": 1e4,
}
_MIN_SMOOTHNESS_PX: Final = 0.5
_SPACING_PER_SMOOTHNESS: Final = 1.25
_MARGIN_PER_SMOOTHNESS: Final = 1.0
_WARPS_AT_ONCE: Final = 16  # what stays in the processor's cache


@dataclass(frozen=True)
class WarpSettings:
    """The limits of random distortions; 0 leaves out a distortion. Checked when they are made.

    Attributes:
        rotation_degrees: The largest angle, either way.
        log_scale: The largest natural logarithm of the stretch, of height and width each.
        shear: The largest slant, in columns a row.
        shift_px: The largest shift, of rows and columns each.
        elastic_px: The standard deviation of each coordinate's elastic displacement.
        elastic_smoothness_px: The width, as a standard deviation, of the Gaussian that smooths it.
        images_per_warp: How many images after another share a warp. Sharing is what makes warps
            cheap; shuffle afterwards, and no batch shows it.

    Raises:
        TrainingError: A setting is out of its range.
    """

    rotation_degrees: float = 0
    log_scale: float = 0
    shear: float = 0
    shift_px: float = 0
    elastic_px: float = 0
    elastic_smoothness_px: float = 4
    images_per_warp: int = 16

    def __post_init__(self) -> None:
        settings = asdict(self)
        for field, largest in _MAX.items():
            # Written so that a NaN, which compares false, is refused as well.
            if not 0 <= settings[field] <= largest:
                raise TrainingError(
                    f"{field}: expected from 0 to {largest:g}, got {settings[field]}"
                )
        if self.elastic_px and self.elastic_smoothness_px < _MIN_SMOOTHNESS_PX:
            raise TrainingError(
                f"elastic_smoothness_px: expected at least {_MIN_SMOOTHNESS_PX} with elastic_px "
                f"above 0, got {self.elastic_smoothness_px}"
            )
        if self.images_per_warp < 1:
            raise TrainingError(f"images_per_warp: expected at least 1, got {self.images_per_warp}")

    def scaled(self, factor: float) -> "WarpSettings":
        """Return settings that distort ``factor`` times as far, in the same manner."""
        return replace(
            self,
            rotation_degrees=factor * self.rotation_degrees,
            log_scale=factor * self.log_scale,
            shear=factor * self.shear,
            shift_px=factor * self.shift_px,
            elastic_px=factor * self.elastic_px,
        )


def warp(
    images: npt.NDArray[Any],
    settings: WarpSettings,
    rng: np.random.Generator,
    *,
    out: FloatArray,
    spec: InputSpec = BYTES_OR_SHARES,
) -> None:
    """Write distorted images into ``out``, each group of them with a warp of its own.

    It keeps nothing between calls, so threads may call it at once, each with its own generator.

    Args:
        images: (N, height, width), of values as ``spec`` has them.
        settings: How far to distort.
        rng: Source of the warps.
        out: (N, height * width) is filled with values in [0, 1].
        spec: How values become inputs.
    """
    _, height, width = images.shape
    at_once = _WARPS_AT_ONCE * settings.images_per_warp
    for start in range(0, len(images), at_once):
        block = images[start : start + at_once]
        warps = -(-len(block) // settings.images_per_warp)
        resample(
            block,
            random_positions(warps, settings, rng, height=height, width=width),
            images_per_warp=settings.images_per_warp,
            out=out[start : start + at_once],
            spec=spec,
        )


def random_positions(
    warps: int, settings: WarpSettings, rng: np.random.Generator, *, height: int, width: int
) -> FloatArray:
    """Return (warps, 2, height, width) positions, as ``resampling.resample`` takes them."""

    def uniform(largest: float, *shape: int) -> FloatArray:
        return rng.uniform(-largest, largest, (warps, *shape)).astype(np.float32)

    maps = linear_maps(
        uniform(settings.rotation_degrees),
        log_scales=uniform(settings.log_scale, 2),
        shears=uniform(settings.shear),
    )
    positions = affine_positions(maps, uniform(settings.shift_px, 2), height=height, width=width)
    if settings.elastic_px:
        positions += _elastic(warps, settings, rng, height=height, width=width)
    return positions


def linear_maps(
    rotations_degrees: FloatArray, *, log_scales: FloatArray, shears: FloatArray
) -> FloatArray:
    """Return the (W, 2, 2) matrices A of the formula above, which act on (row, column).

    Args:
        rotations_degrees: (W,) a positive one turns the picture counterclockwise.
        log_scales: (W, 2) of rows and columns; positive ones make the picture smaller.
        shears: (W,) a positive one moves the lower half of the picture to the left.
    """
    angles = np.radians(rotations_degrees.astype(np.float64))
    cosines, sines = np.cos(angles), np.sin(angles)
    turns = np.stack([cosines, sines, -sines, cosines], axis=-1).reshape(-1, 2, 2)
    slants = np.broadcast_to(np.eye(2), turns.shape).copy()
    slants[:, 1, 0] = shears
    maps = turns @ slants * np.exp(log_scales)[:, None, :]
    return maps.astype(np.float32)


def affine_positions(
    maps: FloatArray, shifts_px: FloatArray, *, height: int, width: int
) -> FloatArray:
    """Return c + A o + t of the formula above for all pixels.

    It is reckoned as (c + o) + ((A - 1) o + t), so that pixels that stay where they are stay so
    exactly, and whole pixels remain whole.

    Args:
        maps: (W, 2, 2).
        shifts_px: (W, 2) of rows and columns.
        height: Rows of the images.
        width: Columns of the images.

    Returns:
        (W, 2, height, width) rows and columns.
    """
    pixels = np.indices((height, width), np.float32)  # (2, height, width)
    centre = np.array([[height - 1], [width - 1]], np.float32) / np.float32(2)
    from_centre = pixels.reshape(2, -1) - centre
    moves: FloatArray = (maps - np.eye(2, dtype=np.float32)) @ from_centre
    moves += shifts_px[:, :, None]
    return moves.reshape(-1, 2, height, width) + pixels


def _elastic(
    warps: int, settings: WarpSettings, rng: np.random.Generator, *, height: int, width: int
) -> FloatArray:
    """Return (warps, 2, height, width) elastic displacements, as derived above."""
    down = _bumps(height, settings.elastic_smoothness_px)
    across = _bumps(width, settings.elastic_smoothness_px)
    noise = rng.standard_normal((warps, 2, len(down), len(across)), np.float32)
    noise *= np.float32(settings.elastic_px)
    displacements: FloatArray = down.T @ (noise @ across)
    return displacements


def _bumps(size: int, smoothness_px: float) -> FloatArray:
    """Return the f_j of the formula above along one side: (bumps, size)."""
    margin = _MARGIN_PER_SMOOTHNESS * smoothness_px
    span = size - 1 + 2 * margin
    count = math.ceil(span / (_SPACING_PER_SMOOTHNESS * smoothness_px)) + 1
    centres = np.linspace(-margin, size - 1 + margin, count)
    bumps = np.exp(-np.square((np.arange(size) - centres[:, None]) / smoothness_px) / 2)
    bumps /= np.sqrt(np.square(bumps).sum(axis=0))
    return bumps.astype(np.float32)
