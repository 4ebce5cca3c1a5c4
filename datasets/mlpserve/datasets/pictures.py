"""Pictures as arrays: decoded, turned upright and resized by Pillow, an extra."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.dataset import DatasetError

ENDINGS: Final = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
_FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # as Pillow calls them
_MODES: Final = {(): "L", (1,): "L", (3,): "RGB"}  # by what follows height and width in a shape
_ORIENTATION: Final = 0x0112  # of EXIF
_FIRST_TURNED: Final = 5  # of its values: those that swap height and width
_MAX_16_BITS: Final = 65535

_filters = threading.Lock()


class PictureError(DatasetError):
    """A picture is none, or is damaged."""


def decode_picture(
    source: bytes | Path, shape: tuple[int, ...], *, where: str
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return a picture in a shape.

    Transparent parts are black, as what is around a digit of MNIST; the rotation that a camera
    notes is applied.

    Args:
        source: The encoded picture, or its file.
        shape: (height, width) or (height, width, 1) for grey, (height, width, 3) for colour; a
            picture of another size is resized.
        where: What messages call it.

    Returns:
        uint8 of that shape; uint16 for grey pictures of 16 bits.

    Raises:
        PictureError: It is no picture, or a damaged one.
        DatasetError: The shape is not one of these, or Pillow is missing.
    """
    mode = _MODES.get(shape[2:]) if len(shape) > 1 else None
    if mode is None:
        raise DatasetError(
            f"{where}: --shape: expected a height and a width for grey, as in 28x28, or with x3 "
            f"for colour, got {'x'.join(str(size) for size in shape)}"
        )
    with _opened(source, where) as opened:
        opened.load()
        picture = _upright(opened)
        is_wide = picture.mode.startswith("I") and mode == "L"
        seen = picture if is_wide else _opaque(picture).convert(mode)
        size = (shape[1], shape[0])
        if seen.size != size:
            # Pillow filters 16 bits as floats only.
            seen = seen.convert("F") if is_wide else seen
            seen = seen.resize(size, _pillow(where).Resampling.LANCZOS)
        values = np.asarray(seen)
    if is_wide:
        whole: npt.NDArray[np.uint16] = np.rint(np.clip(values, 0, _MAX_16_BITS)).astype(np.uint16)
        return whole.reshape(shape)
    return np.asarray(values, np.uint8).reshape(shape)


def picture_shape(source: bytes | Path, *, where: str) -> tuple[int, int]:
    """Return the height and the width of a picture, from its beginning alone.

    Raises:
        PictureError: It is no picture.
        DatasetError: Pillow is missing.
    """
    with _opened(source, where) as picture:
        width, height = picture.size
        # A camera that was held upright notes that its picture must be turned.
        is_turned = picture.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
        return (width, height) if is_turned else (height, width)


@contextmanager
def _opened(source: bytes | Path, where: str) -> Iterator[Any]:
    """Lend a picture; what is wrong with it becomes one sentence."""
    try:
        with _begun(source, where) as picture:
            yield picture
    # Pillow has no list of what it raises for a damaged picture.
    except Exception as error:
        if isinstance(error, DatasetError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{where}: expected a picture, but {reason}") from error


def _begun(source: bytes | Path, where: str) -> Any:  # noqa: ANN401 - Pillow is an extra
    """Return a picture of which only the beginning was read."""
    image = _pillow(where)
    place = io.BytesIO(source) if isinstance(source, bytes) else source
    # The filters of warnings are those of all threads. What unpacks to far more than it should is
    # a warning of Pillow's at first.
    with (
        _filters,
        warnings.catch_warnings(action="error", category=image.DecompressionBombWarning),
    ):
        return image.open(place, formats=_FORMATS)


def _upright(picture: Any) -> Any:  # noqa: ANN401 - Pillow is an extra
    from PIL import ImageOps  # noqa: PLC0415

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - a broken note does not break the pixels
        return picture


def _opaque(picture: Any) -> Any:  # noqa: ANN401 - Pillow is an extra
    if not picture.has_transparency_data:
        return picture
    seen = picture.convert("RGBA")
    image = _pillow("")
    return image.alpha_composite(image.new("RGBA", seen.size, "black"), seen)


def _pillow(where: str) -> Any:  # noqa: ANN401 - Pillow is an extra
    try:
        from PIL import Image  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"{where}: pictures need Pillow: pip install 'mlpserve[pictures]'"
        ) from error
    return Image
