"""Bilinear resampling: images read at other positions than their pixels'.

Knows where to read, not why there.

Between pixels the grey is interpolated bilinearly. At the position (row + v, column + u), with u
and v from 0 to 1, it is a weighted mean of the four pixels around,

    (1 - v) (1 - u) p[row, column]     + (1 - v) u p[row, column + 1]
        + v (1 - u) p[row + 1, column] +       v u p[row + 1, column + 1],

and outside the image all is black. The images of a group are read at the same positions. So the
four indices and the four weights of each pixel are reckoned once a group; what is left for each
image is four gathers and a few passes over memory.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.model.inputs import BYTES_OR_SHARES, InputSpec

FloatArray: TypeAlias = npt.NDArray[np.float32]

_BORDER_BEFORE_PX: Final = 1
_BORDER_AFTER_PX: Final = 2  # even the first black pixel after the image has a right neighbour


@dataclass(frozen=True, eq=False)
class _Samples:
    """The positions at which W warps read a padded, flattened image of P pixels.

    Attributes:
        indices: (W, P) of the upper left one of the four pixels around each position.
        offsets: How far the four lie from that one in the padded image.
        weights: (4, W, P) the share of each of the four.
    """

    indices: npt.NDArray[np.intp]
    offsets: tuple[int, int, int, int]
    weights: FloatArray


def resample(
    images: npt.NDArray[Any],
    positions: FloatArray,
    *,
    images_per_warp: int,
    out: FloatArray,
    spec: InputSpec = BYTES_OR_SHARES,
) -> None:
    """Write into ``out`` what the images show at given positions, one set of them for each group.

    Args:
        images: (N, height, width), of values as ``spec`` has them.
        positions: (W, 2, height, width) for each pixel of the result the row and the column to read
            at, from 0 at the middle of the first pixel. W is N / ``images_per_warp``, rounded up.
        images_per_warp: How many images after another are read at the same positions.
        out: (N, height * width) is filled with values in [0, 1].
        spec: How values become inputs.
    """
    count, height, width = images.shape
    samples = _samples(positions)
    border = _BORDER_BEFORE_PX + _BORDER_AFTER_PX
    padded = np.zeros((min(images_per_warp, count), height + border, width + border), np.float32)
    corner = np.empty((len(padded), height * width), np.float32)
    for warp, start in enumerate(range(0, count, images_per_warp)):
        group = slice(start, start + images_per_warp)
        _pad(images[group], spec.scaling(images.dtype), padded)
        _blend(padded, samples, warp, corner, out[group])
    # The weights' sum is 1 up to rounding.
    np.minimum(out, 1, out=out)


def _samples(positions: FloatArray) -> _Samples:
    """Split positions into whole pixels of the padded image and weights."""
    warps, _, height, width = positions.shape
    flat = positions.reshape(warps, 2, height * width)
    # What lies further outside is as black as the first pixel outside.
    rows = np.clip(flat[:, 0], -1, height) + np.float32(_BORDER_BEFORE_PX)
    columns = np.clip(flat[:, 1], -1, width) + np.float32(_BORDER_BEFORE_PX)
    # None is negative, so cutting off the fraction rounds down.
    whole_rows, whole_columns = rows.astype(np.intp), columns.astype(np.intp)
    rows -= whole_rows
    columns -= whole_columns
    padded_width = width + _BORDER_BEFORE_PX + _BORDER_AFTER_PX
    return _Samples(
        whole_rows * padded_width + whole_columns,
        (0, 1, padded_width, padded_width + 1),
        np.stack(
            [
                (1 - rows) * (1 - columns),
                (1 - rows) * columns,
                rows * (1 - columns),
                rows * columns,
            ]
        ),
    )


def _pad(images: npt.NDArray[Any], scaling: tuple[float, float], padded: FloatArray) -> None:
    """Copy images into the middle of a black buffer, scaled to [0, 1]."""
    offset, divisor = scaling
    middle = slice(_BORDER_BEFORE_PX, -_BORDER_AFTER_PX)
    padded[: len(images), middle, middle] = images
    if offset:
        padded[: len(images), middle, middle] -= np.float32(offset)
    if divisor != 1:
        padded /= np.float32(divisor)


def _blend(
    padded: FloatArray, samples: _Samples, warp: int, corner: FloatArray, out: FloatArray
) -> None:
    """Write the weighted sums of the four pixels around each position of one warp."""
    count = len(out)
    flat = padded.reshape(len(padded), -1)[:count]
    for offset, weights in zip(samples.offsets, samples.weights[:, warp], strict=True):
        target = corner[:count] if offset else out
        # All indices are within the border; "clip" only spares NumPy a copy of the result.
        np.take(flat, samples.indices[warp] + offset, axis=1, out=target, mode="clip")
        target *= weights
        if offset:
            out += target
