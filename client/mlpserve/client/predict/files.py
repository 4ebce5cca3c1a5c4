"""Files of images for ``mlpserve-predict``: .npy, .npz, IDX, PNG and JPEG.

A format is a line of ``FORMATS`` and its reader. It is told by how the file begins, not by its
name. For the command, not for the library.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mlpserve.datasets import DatasetError
from mlpserve.datasets.idx import read_idx
from mlpserve.datasets.npz import read_npz_arrays

logger = logging.getLogger(__name__)

_MAX_START_BYTES: Final = 8
_NPZ_ENTRIES: Final = ("images", "x_test")
_HALF: Final = 127.5
_BITS_OF_BYTE: Final = 8


@dataclass(frozen=True, eq=False)
class ImageFile:
    """The images of one file.

    Attributes:
        path: Where they are from.
        images: (N, ...) of the file's dtype.
    """

    path: Path
    images: npt.NDArray[Any]


@dataclass(frozen=True)
class Wanted:
    """The form that pictures are brought to; arrays are taken as they are.

    Attributes:
        shape: What the model takes.
        invert: Whether they are dark on light, and so must be inverted.
    """

    shape: tuple[int, ...]
    invert: bool


@dataclass(frozen=True)
class FileFormat:
    """A format of files that hold images.

    Attributes:
        name: What messages call it.
        starts: How such a file may begin.
        read: Returns its images, (N, ...), or one image.
    """

    name: str
    starts: tuple[bytes, ...]
    read: Callable[[Path, Wanted], npt.NDArray[Any]]


def read_images(path: Path, input_shape: tuple[int, ...], *, invert: bool) -> ImageFile:
    """Read the images of a file in one of ``FORMATS``.

    Args:
        path: The file.
        input_shape: What the model takes. An array of this very shape is one image; pictures are
            made grey and brought to this size.
        invert: Whether pictures are dark on light, and so must be inverted.

    Raises:
        DatasetError: The file cannot be read, or is of another format.
    """
    images = _format_of(path).read(path, Wanted(input_shape, invert))
    return ImageFile(path, images[np.newaxis] if images.shape == input_shape else images)


def _format_of(path: Path) -> FileFormat:
    try:
        with path.open("rb") as file:
            begin = file.read(_MAX_START_BYTES)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    for form in FORMATS:
        if begin.startswith(form.starts):
            return form
    raise DatasetError(f"{path}: expected {ACCEPTED}, but it begins with {begin!r}")


def _arrays(
    read: Callable[[Path], npt.NDArray[Any]],
) -> Callable[[Path, Wanted], npt.NDArray[Any]]:
    return lambda path, _: read(path)


def _read_npy(path: Path) -> npt.NDArray[Any]:
    try:
        # Mapped, not read: so the sizes in the header are held against the file's before anything
        # is allocated.
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    # NumPy answers a damaged header with a dozen exceptions, and promises no list of them.
    except Exception as error:
        raise DatasetError(f"{path}: expected an .npy file, but {error}") from error
    return mapped


def _read_npz(path: Path) -> npt.NDArray[Any]:
    arrays = read_npz_arrays(path, optional=_NPZ_ENTRIES)
    for name in _NPZ_ENTRIES:
        if name in arrays:
            return arrays[name]
    raise DatasetError(f"{path}: expected an entry {' or '.join(_NPZ_ENTRIES)}")


def _read_picture(path: Path, wanted: Wanted) -> npt.NDArray[np.uint8]:
    if len(wanted.shape) != 2:  # noqa: PLR2004 - height and width
        raise DatasetError(
            f"{path}: expected an array, because the model takes {wanted.shape}, not pictures "
            "of a height and a width"
        )
    height, width = wanted.shape
    # Ink is light, or is about to be: what is not there is as dark, or as light, as the page.
    grey = _grey(path, page="white" if wanted.invert else "black")
    if grey.size != (width, height):
        logger.info("%s: brought from %d x %d to %d x %d", path, *grey.size, width, height)
        grey = grey.resize((width, height), Image.Resampling.LANCZOS)
    picture = np.asarray(grey, np.uint8)
    if picture.min() == picture.max():
        logger.warning("%s: is of one grey; if its ink is dark on transparent: --invert", path)
    if wanted.invert:
        return 255 - picture
    if picture.mean() > _HALF:
        logger.warning(
            "%s: looks dark on light; models of digits want light on dark: --invert", path
        )
    return picture


def _grey(path: Path, *, page: str) -> Image.Image:
    try:
        # A picture that unpacks to far more than it should is a warning of Pillow's at first.
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=_PICTURES) as picture,
        ):
            return _opaque(_eight_bits(ImageOps.exif_transpose(picture)), page).convert("L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{path}: too large: {error}") from error
    # Pillow has no list of what it raises for a damaged picture either.
    except Exception as error:
        raise DatasetError(
            f"{path}: expected a {' or '.join(_PICTURES)} picture, but {error}"
        ) from error


def _opaque(picture: Image.Image, page: str) -> Image.Image:
    """Return what is seen of a picture with transparent parts on a page of one colour."""
    if not picture.has_transparency_data:
        return picture
    seen = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, page), seen)


def _eight_bits(picture: Image.Image) -> Image.Image:
    if not picture.mode.startswith("I"):
        return picture
    # Left to itself, Pillow makes all that is above 255 of 65535 white.
    return Image.fromarray((np.asarray(picture) >> _BITS_OF_BYTE).astype(np.uint8))


FORMATS: Final = (
    FileFormat(".npy", (b"\x93NUMPY",), _arrays(_read_npy)),
    FileFormat(".npz", (b"PK\x03\x04",), _arrays(_read_npz)),
    FileFormat("IDX", (b"\x1f\x8b", b"\x00\x00\x08"), _arrays(read_idx)),  # gzipped, and not
    FileFormat("PNG", (b"\x89PNG",), _read_picture),
    FileFormat("JPEG", (b"\xff\xd8\xff",), _read_picture),
)
# Pillow's names of pictures are ours.
_PICTURES: Final = tuple(form.name for form in FORMATS if form.read is _read_picture)
ACCEPTED: Final = f"{', '.join(form.name for form in FORMATS[:-1])} or {FORMATS[-1].name}"
