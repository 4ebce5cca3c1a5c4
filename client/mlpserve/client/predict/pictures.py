"""Pictures, PNG and JPEG, brought to the form that a model takes: grey, upright, of its size."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlpserve.client.arrays import picture_values
from mlpserve.client.photographs import preprocess
from mlpserve.client.predict.doubts import doubt
from mlpserve.datasets import DatasetError
from mlpserve.datasets.pictures import load_picture, resized

logger = logging.getLogger(__name__)

PICTURE_FORMATS: Final = ("PNG", "JPEG")  # as Pillow calls them
PICTURE_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".jpe")
_WHITE: Final = 255


@dataclass(frozen=True)
class Look:
    """How pictures look, and so what is to be done to them.

    Attributes:
        invert: Whether they are dark on light, and so must be inverted.
        preprocess: Whether they are photographs of things drawn, and so must be found in them.
    """

    invert: bool = False
    preprocess: bool = False


def read_picture(
    path: Path,
    shape: tuple[int, ...],
    look: Look,
    value_range: tuple[float, float] | None = None,
) -> tuple[npt.NDArray[Any], str]:
    """Return a picture in the shape of a model's images, and what may be wrong with it.

    Args:
        path: The file.
        shape: What the model takes: a height and a width, axes of length 1 aside, or the square of
            a side.
        look: How it looks.
        value_range: The lowest and the highest value that the model takes; None for bytes.

    Returns:
        uint8, or float32 in the model's range, of ``shape``; and a warning, or "".

    Raises:
        DatasetError: It cannot be read, or the model takes no pictures.
    """
    height, width = picture_size(shape, path)
    low, high = (0.0, float(_WHITE)) if value_range is None else value_range
    if look.preprocess:
        found = _preprocessed(path, (height, width))
        return picture_values(found, value_range).reshape(shape), ""
    # Ink is light, or is about to be: what is not there is as dark, or as light, as the page.
    loaded = _loaded(path, page="white" if look.invert else "black")
    if loaded.size != (width, height):
        logger.debug("%s: brought from %d x %d to %d x %d", path, *loaded.size, width, height)
    values = picture_values(resized(loaded, (width, height)), value_range)
    if look.invert:
        values = (low + high - values).astype(values.dtype)
    return values.reshape(shape), doubt(values - low, white=high - low)


def _loaded(path: Path, *, page: str) -> Image.Image:
    picture: Image.Image = load_picture(path, where=str(path), page=page, formats=PICTURE_FORMATS)
    return picture


def picture_size(shape: tuple[int, ...], path: Path) -> tuple[int, int]:
    """Return the height and the width of a model's images.

    Raises:
        DatasetError: They are no grey pictures.
    """
    sides = [side for side in shape if side != 1]
    if len(sides) == 1 and math.isqrt(sides[0]) ** 2 == sides[0]:  # flattened
        sides = [math.isqrt(sides[0])] * 2
    if len(sides) != 2:  # noqa: PLR2004 - height and width
        raise DatasetError(
            f"{path}: expected an array, because the model takes {shape}, not pictures "
            "of a height and a width"
        )
    return sides[0], sides[1]


def _preprocessed(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = size
    if height != width:
        raise DatasetError(
            f"{path}: --preprocess: expected a model of square pictures, but it takes "
            f"{height} x {width}"
        )
    loaded = _loaded(path, page="white")
    photograph = np.asarray(loaded if loaded.mode.startswith("I") else loaded.convert("RGB"))
    found: npt.NDArray[np.uint8] = preprocess([photograph], side=height)[0]
    return found
