"""Photographs of single digits brought to the form that MNIST's digits have.

MNIST's were made so: light on black, scaled into a box of 20 x 20 with their proportions kept, and
placed in 28 x 28 with the centre of mass in the middle (LeCun et al., 1998). A photograph has paper
with shadows, ink of some colour, and a digit somewhere. From one to the other:

1. Ink is dark, or light, by the sign of the skewness of what a quadratic surface leaves of the
   picture: paper is most of it, and ink is far from paper on one side.
2. Of the colours, the channel in which ink differs most: the least for dark ink, the greatest for
   light ink. So ink of any colour counts.
3. The paper behind the ink is a morphological closing: the greatest value in a window around each
   pixel, and then the least of these. It takes away what is narrower than the window, which
   strokes are and shadows are not. Light falls on paper and ink alike, and so their quotient is
   free of it: ``ink = 1 - grey / paper``.
4. Contrast is stretched between the means of paper and ink, parted by Otsu's threshold (1979),
   which makes the variance between the two the largest.
5. Of the connected parts the largest that does not touch the border is the digit, with what lies
   close to it.
6. Strokes thinner than MNIST's are widened; a thin pen would be a grey shade otherwise.
7. The digit is scaled, averaging over what falls into a pixel, and centred by mass.

Steps 1 to 5 are done twice: in the whole picture, and closer, around the digit that was found.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve.client.errors import InvalidRequestError
from mlpserve.client.filters import (
    Floats,
    Mask,
    connected_parts,
    largest_along,
    largest_around,
    least_around,
    mean_around,
    quadratic_surface,
    resampling,
    two_means,
)

_SIDE: Final = 28  # of MNIST's images
_BOX_SHARE: Final = 20 / 28
_STROKE_SHARE: Final = 2.4 / 20
"""How wide a stroke is at least, as a share of the box."""

_WORKING_PX: Final = 160  # the longer side of what is looked at
_WINDOW_SHARE: Final = 1 / 3
_LEAST_CONTRAST: Final = 0.06
_RAMP: Final = (0.25, 0.85)  # of the way from paper to ink: what becomes 0, and what becomes 1
_LEAST_PART: Final = 0.05
_NEAR: Final = 0.3
_MARGIN: Final = 0.5
_COLOURS: Final = 3


class _Box(NamedTuple):
    top: int
    bottom: int
    left: int
    right: int

    @property
    def longest(self) -> int:
        return max(self.bottom - self.top, self.right - self.left)


def preprocess(
    images: npt.NDArray[Any] | Sequence[npt.ArrayLike], *, side: int = _SIDE
) -> npt.NDArray[np.uint8]:
    """Return photographs of single digits as MNIST's digits are: ready for ``Client.predict``.

    Args:
        images: (N, height, width) or (N, height, width, channels), or a sequence of such pictures
            without the first axis, of any sizes; three channels are red, green and blue, a fourth
            is ignored. uint8, uint16, or float from 0 to 1.
        side: Height and width of the result; the digit is in a box of 20 / 28 of it.

    Returns:
        (N, side, side) uint8, light on black; all black where no digit was found.

    Raises:
        InvalidRequestError: There is no picture, or one is of another shape or dtype.
    """
    if len(images) == 0:
        raise InvalidRequestError("images: expected at least one picture, got none")
    return np.stack([_digit(_channels(np.asarray(image)), side) for image in images])


def _channels(image: npt.NDArray[Any]) -> Floats:
    """Return a picture as (height, width, channels) from 0 to 1."""
    if image.ndim == 2:  # noqa: PLR2004 - height and width
        image = image[:, :, np.newaxis]
    if image.ndim != 3 or 0 in image.shape or image.shape[2] > _COLOURS + 1:  # noqa: PLR2004
        raise InvalidRequestError(
            "images: expected pictures of (height, width) or (height, width, channels), "
            f"got shape {image.shape}"
        )
    channels = image[:, :, : _COLOURS if image.shape[2] >= _COLOURS else 1]
    if image.dtype.kind == "f":
        clipped: Floats = np.clip(np.nan_to_num(channels), 0, 1).astype(np.float32)
        return clipped
    if image.dtype not in (np.uint8, np.uint16, np.bool_):
        raise InvalidRequestError(f"images: expected uint8, uint16 or float, got {image.dtype}")
    white = 1 if image.dtype == np.bool_ else np.iinfo(image.dtype).max
    scaled: Floats = channels.astype(np.float32) / np.float32(white)
    return scaled


def _digit(picture: Floats, side: int) -> npt.NDArray[np.uint8]:
    found = _found(picture)
    if found is None:
        return np.zeros((side, side), np.uint8)
    ink, box = found
    if box.longest < _WORKING_PX / 2:
        closer = _found(_around(picture, box, ink.shape))
        ink, box = closer or found
    strokes = _widened(ink[box.top : box.bottom, box.left : box.right])
    return _centred(_scaled(strokes, round(side * _BOX_SHARE)), side)


def _found(picture: Floats) -> tuple[Floats, _Box] | None:
    """Return the ink of the digit in a picture, 0 to 1, and where it is; None without any."""
    ink = _ink(_reduced(picture))
    if ink is None:
        return None
    digit = _largest_parts(ink > 1 / 2)
    if not digit.any():
        return None
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    box = _Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    return ink * largest_around(digit, 3), box


def _reduced(picture: Floats) -> Floats:
    """Return a picture whose longer side is what is worked on; a smaller one is enlarged."""
    height, width, _ = picture.shape
    scale = _WORKING_PX / max(height, width)
    down = resampling(height, max(1, round(height * scale)))
    across = resampling(width, max(1, round(width * scale)))
    reduced: Floats = np.einsum("ih,hwc,jw->ijc", down, picture, across, optimize=True)
    return reduced


def _around(picture: Floats, box: _Box, shape: tuple[int, ...]) -> Floats:
    """Return the part of a picture around a box, which is in the coordinates of ``shape``."""
    down, across = picture.shape[0] / shape[0], picture.shape[1] / shape[1]
    margin = _MARGIN * box.longest
    top, bottom = (box.top - margin) * down, (box.bottom + margin) * down
    left, right = (box.left - margin) * across, (box.right + margin) * across
    return picture[
        max(0, int(top)) : max(1, int(np.ceil(bottom))),
        max(0, int(left)) : max(1, int(np.ceil(right))),
    ]


def _ink(picture: Floats) -> Floats | None:
    """Return where ink is, from 0 for paper to 1; None where all is paper."""
    mean = picture.mean(axis=2)
    is_dark = float(((mean - quadratic_surface(mean)) ** 3).mean()) < 0
    grey = picture.min(axis=2) if is_dark else 1 - picture.max(axis=2)
    grey = mean_around(grey, 3)
    window = max(3, round(min(grey.shape) * _WINDOW_SHARE))
    # Beyond the border the light goes on as it does before it.
    beyond = np.pad(grey, window, mode="reflect", reflect_type="odd")
    closed = least_around(largest_around(beyond, window), window)[window:-window, window:-window]
    paper = mean_around(closed, window // 2)
    ink = np.clip(1 - grey / np.maximum(paper, 1e-3), 0, 1)
    dark, light = two_means(ink)
    if light - dark < _LEAST_CONTRAST:
        return None
    low, high = (dark + share * (light - dark) for share in _RAMP)
    return np.clip((ink - low) / (high - low), 0, 1).astype(np.float32)


def _largest_parts(mask: Mask) -> Mask:
    """Return the largest connected part off the border, and the parts close to it."""
    labels = connected_parts(largest_around(mask, 3))
    labels[~mask] = 0
    areas = np.bincount(labels.reshape(-1))
    areas[0] = 0
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    inner = areas.copy()
    inner[np.unique(border)] = 0
    # A digit may reach the border, but then nothing else is large.
    inner = inner if inner.max() >= _LEAST_PART * areas.max() else areas
    if not inner.any():
        return mask
    main = labels == inner.argmax()
    rows, columns = np.flatnonzero(main.any(axis=1)), np.flatnonzero(main.any(axis=0))
    reach = _NEAR * max(np.ptp(rows), np.ptp(columns))
    near = np.zeros_like(mask)
    near[
        max(0, int(rows[0] - reach)) : int(rows[-1] + reach) + 1,
        max(0, int(columns[0] - reach)) : int(columns[-1] + reach) + 1,
    ] = True
    kept = np.flatnonzero(inner >= _LEAST_PART * inner.max())
    whole = [part for part in kept if near[labels == part].all()]
    return np.isin(labels, whole) if whole else main


def _widened(ink: Floats) -> Floats:
    """Return strokes that are not thinner than MNIST's.

    A stroke of width w and length l has the area w l and the outline 2 l. Of an outline in all
    directions, the sides of its pixels are 4 / pi as long.
    """
    mask = np.pad(ink > 1 / 2, 1)
    outline = np.count_nonzero(np.diff(mask, axis=0)) + np.count_nonzero(np.diff(mask, axis=1))
    width = 2 * np.count_nonzero(mask) / max(1.0, outline * np.pi / 4)
    wanted = _STROKE_SHARE * max(ink.shape)
    steps = round((wanted - width) / 2)
    if steps < 1:
        return ink
    ink = np.pad(ink, steps)
    for step in range(steps):
        # A square and a cross in turn make an octagon, which is nearly round.
        rows, columns = largest_along(ink, 3, 0), largest_along(ink, 3, 1)
        ink = np.maximum(rows, columns) if step % 2 else largest_along(rows, 3, 1)
    return ink


def _scaled(ink: Floats, box: int) -> Floats:
    """Return ink scaled into a box, its proportions kept, and its brightest parts white."""
    height, width = ink.shape
    scale = box / max(height, width)
    down = resampling(height, max(1, round(height * scale)))
    across = resampling(width, max(1, round(width * scale)))
    scaled = (down @ ink @ across.T).astype(np.float32, copy=False)
    bright = np.quantile(scaled[scaled > scaled.max() / 4], 0.75)
    clipped: Floats = np.clip(scaled / max(float(bright), 1e-6), 0, 1).astype(np.float32)
    return clipped


def _centred(digit: Floats, side: int) -> npt.NDArray[np.uint8]:
    """Return a digit on black with its centre of mass in the middle pixel, as far as it fits.

    MNIST's lies in pixel 14 of 0 to 27, on average 14.0.
    """
    placed = np.zeros((side, side), np.uint8)
    mass = digit.sum()
    starts = []
    for axis, size in enumerate(digit.shape):
        centre = (digit.sum(axis=1 - axis) @ np.arange(size)) / mass
        starts.append(int(np.clip(round(side // 2 - float(centre)), 0, side - size)))
    top, left = starts
    height, width = digit.shape
    placed[top : top + height, left : left + width] = np.rint(digit * 255)
    return placed
