"""Pictures of images and weights, whatever shape one image of the data has: PNG as data URIs.

The PNG is written with zlib and struct alone. Source: Portable Network Graphics (PNG)
Specification, W3C, sections 5 and 11.
"""

import base64
import math
import struct
import zlib
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

_MAX_PIXELS_A_SIDE: Final = 64  # more is not seen at the size that pictures are shown in
_MAX_ASPECT_RATIO: Final = 8  # a picture that is longer still would be a hair
_COLOUR_CHANNELS: Final = 3
_WHITE: Final = 255

# Negative weights in orange, positive ones in blue: told apart by the colour-blind too. The nearer
# to 0, the more of the page is seen, so that the pictures suit a light page and a dark one.
NEGATIVE_COLOUR: Final = (222, 110, 24)
POSITIVE_COLOUR: Final = (42, 135, 214)
_STEPS: Final = 31  # of each colour: more are not told apart, and cost bytes

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE = 0, 2, 3  # colour types
_BITS: Final = 8
_NO_FILTER: Final = 0
Bytes: TypeAlias = npt.NDArray[np.uint8]
Grid: TypeAlias = npt.NDArray[np.floating[Any]]


def image_uri(image: npt.NDArray[Any]) -> str:
    """Return one image, uint8 or float from 0 to 1, as a picture; 0 is black."""
    values = image / _WHITE if image.dtype == np.uint8 else image
    grid = _compact(_grid(np.asarray(values, np.float64)))
    pixels = np.rint(grid * _WHITE).astype(np.uint8)
    return _picture_uri(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def weights_uri(weights: npt.NDArray[Any], shape: tuple[int, ...], largest: float) -> str:
    """Return the weights of one unit of the first layer as a picture of the shape of an image.

    Where images are coloured, the sum of the weights of a pixel's colours is shown.

    Args:
        weights: (D,) one for each value of an image.
        shape: The shape of one image, D values.
        largest: The magnitude that has the full colour; above 0.
    """
    grid = _compact(_grid(weights.astype(np.float64).reshape(shape)).sum(axis=2, keepdims=True))
    steps = np.rint(np.clip(grid[:, :, 0] / largest, -1, 1) * _STEPS)
    return _palette_picture_uri((steps + _STEPS).astype(np.uint8), _diverging_palette())


def _diverging_palette() -> npt.NDArray[np.uint8]:
    """Return (2 * steps + 1, 4): full orange, through nothing at all, to full blue."""
    steps = np.arange(-_STEPS, _STEPS + 1)
    colours = np.where(steps[:, np.newaxis] < 0, NEGATIVE_COLOUR, POSITIVE_COLOUR)
    opacities = np.rint(np.abs(steps) / _STEPS * _WHITE)
    return np.column_stack([colours, opacities]).astype(np.uint8)


def _grid(image: Grid) -> Grid:
    """Return an image of any shape as (height, width, 1 or 3).

    What is flat is taken for a square where its length is a square's.
    """
    shape = image.shape
    if len(shape) == 3 and shape[2] in (1, _COLOUR_CHANNELS):  # noqa: PLR2004 - dimensions
        return image
    if len(shape) == 3 and shape[0] in (1, _COLOUR_CHANNELS):  # noqa: PLR2004 - dimensions
        return np.moveaxis(image, 0, 2)
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        rows = side if side**2 == shape[0] else 1
        return image.reshape(rows, -1, 1)
    return image.reshape(shape[0], -1, 1)


def _compact(grid: Grid) -> Grid:
    """Return a picture of at most 64 pixels a side, and not too thin to be seen."""
    step = -(-max(grid.shape[:2]) // _MAX_PIXELS_A_SIDE)
    for axis in (0, 1):
        # The mean of each ``step`` rows or columns; the last ones may be fewer.
        starts = np.arange(0, grid.shape[axis], step)
        sums = np.add.reduceat(grid, starts, axis=axis)
        counts = np.diff([*starts.tolist(), grid.shape[axis]])
        grid = sums / np.expand_dims(counts, tuple(other for other in range(3) if other != axis))
    short = int(np.argmin(grid.shape[:2]))
    times = grid.shape[1 - short] // (_MAX_ASPECT_RATIO * grid.shape[short])
    return np.repeat(grid, max(times, 1), axis=short)


def _picture_uri(pixels: Bytes) -> str:
    """Return a picture as a data URI.

    Args:
        pixels: (height, width) greys, or (height, width, 3) red, green and blue.
    """
    colour_type = _GREY if pixels.ndim == 2 else _COLOUR  # noqa: PLR2004 - a matrix
    return _uri(pixels, colour_type)


def _palette_picture_uri(indices: Bytes, palette: Bytes) -> str:
    """Return a picture whose pixels are indices into a palette as a data URI.

    Args:
        indices: (height, width), each below the length of the palette.
        palette: (count, 4) red, green, blue and opacity, at most 256.
    """
    extra = _chunk(b"PLTE", palette[:, :3].tobytes()) + _chunk(b"tRNS", palette[:, 3].tobytes())
    return _uri(indices, _PALETTE, extra)


def _uri(pixels: Bytes, colour_type: int, extra: bytes = b"") -> str:
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, _BITS, colour_type, 0, 0, 0)
    # Each row of pixels begins with the number of its filter.
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)), constant_values=_NO_FILTER)
    data = b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            extra,
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
