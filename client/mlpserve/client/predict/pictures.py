"""Pictures, PNG and JPEG, brought to the form that a model takes: grey, upright, of its size."""

import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mlpserve.client.arrays import picture_values
from mlpserve.client.photographs import preprocess
from mlpserve.client.predict.doubts import doubt
from mlpserve.datasets import DatasetError

logger = logging.getLogger(__name__)

PICTURE_FORMATS: Final = ("PNG", "JPEG")  # as Pillow calls them
PICTURE_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".jpe")
_WHITE: Final = 255
_WHITE_OF_16_BITS: Final = 65535


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
    decoded = _decoded(path, page="white" if look.invert else "black")
    values = picture_values(_resized(path, decoded, (width, height)), value_range)
    if look.invert:
        values = (low + high - values).astype(values.dtype)
    return values.reshape(shape), doubt(values - low, white=high - low)


def _resized(
    path: Path, picture: Image.Image, size: tuple[int, int]
) -> npt.NDArray[np.uint8 | np.uint16]:
    """Return the grey pixels of a picture in a size: 16 bits where it has them."""
    is_wide = picture.mode.startswith("I")
    # Pillow scales 16 bits as floats only.
    grey = picture.convert("F" if is_wide else "L")
    if grey.size != size:
        logger.debug("%s: brought from %d x %d to %d x %d", path, *grey.size, *size)
        grey = grey.resize(size, Image.Resampling.LANCZOS)
    if not is_wide:
        return np.asarray(grey, np.uint8)
    wide: npt.NDArray[np.uint16] = np.rint(np.clip(np.asarray(grey), 0, _WHITE_OF_16_BITS)).astype(
        np.uint16
    )
    return wide


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
    decoded = _decoded(path, page="white")
    photograph = np.asarray(decoded if decoded.mode.startswith("I") else decoded.convert("RGB"))
    found: npt.NDArray[np.uint8] = preprocess([photograph], side=height)[0]
    return found


def _decoded(path: Path, *, page: str) -> Image.Image:
    """Return a picture upright, without transparent parts; 16 bits of grey as ``I;16``."""
    try:
        with warnings.catch_warnings():
            # A picture that unpacks to far more than it should is a warning of Pillow's at first.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Of a damaged note of the camera: the pixels are whole.
            warnings.filterwarnings("ignore", "Corrupt EXIF", UserWarning)
            with Image.open(path, formats=PICTURE_FORMATS) as picture:
                picture.load()
                return _opaque(_upright(picture), page)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{path}: too large: {error}") from error
    # Pillow has no list of what it raises for a damaged picture either.
    except Exception as error:
        raise DatasetError(
            f"{path}: expected a {' or '.join(PICTURE_FORMATS)} picture, but {error}"
        ) from error


def _upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned as its camera noted; as it is where the note is damaged."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - as for pictures; the pixels are whole, and loaded
        return picture


def _opaque(picture: Image.Image, page: str) -> Image.Image:
    """Return what is seen of a picture on a page of one colour."""
    if picture.mode.startswith("I"):
        return _opaque_16_bits(picture, page)
    if not picture.has_transparency_data:
        return picture
    seen = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, page), seen)


def _opaque_16_bits(picture: Image.Image, page: str) -> Image.Image:
    """Do the same with 16 bits of grey, of which one value may be the transparent one."""
    values: npt.NDArray[Any] = np.asarray(picture)
    if (key := picture.info.get("transparency")) is not None:
        paper = _WHITE_OF_16_BITS if page == "white" else 0
        values = np.where(values == key, paper, values)
    return Image.fromarray(values.astype(np.uint16))
