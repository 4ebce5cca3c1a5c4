"""Pictures as arrays: decoded, turned upright and resized by Pillow, an extra."""

import io
import threading
import warnings
from collections.abc import Iterator, Sequence
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
FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # as Pillow calls them
_MODES: Final = {(): "L", (1,): "L", (3,): "RGB"}  # by what follows height and width in a shape
_ORIENTATION: Final = 0x0112  # of EXIF
_FIRST_TURNED: Final = 5  # of its values: those that swap height and width
_MAX_16_BITS: Final = 65535
_16_BITS_BY_8: Final = 257  # what white of 16 bits is more than white of 8

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
    return resized(load_picture(source, where=where), (shape[1], shape[0]), mode).reshape(shape)


def load_picture(
    source: bytes | Path, *, where: str, page: str = "black", formats: Sequence[str] = FORMATS
) -> Any:  # noqa: ANN401 - Pillow is an extra
    """Return a picture of Pillow's, upright, and without transparent parts.

    Args:
        source: The encoded picture, or its file.
        where: What messages call it.
        page: What is seen through its transparent parts, "black" or "white".
        formats: What it may be, as Pillow calls them.

    Returns:
        A picture of bytes, of whichever mode; of ``I;16`` for grey of 16 bits.

    Raises:
        PictureError: It is no picture, or a damaged one.
        DatasetError: Pillow is missing.
    """
    with _opened(source, where, formats) as opened:
        opened.load()
        return _opaque(_upright(opened), page)


def resized(
    picture: Any,  # noqa: ANN401 - Pillow is an extra
    size: tuple[int, int],
    mode: str = "L",
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return the pixels of a picture of ``load_picture`` in a size.

    Args:
        picture: The picture.
        size: The width and the height.
        mode: "L" for grey, "RGB" for colour.

    Returns:
        (height, width) or (height, width, 3) uint8; uint16 for grey of 16 bits.
    """
    is_wide = picture.mode.startswith("I")
    if is_wide and mode != "L":  # Pillow would make white of all that is above 255
        values = np.rint(np.asarray(picture) / _16_BITS_BY_8)
        picture, is_wide = _pillow("").fromarray(values.astype(np.uint8)), False
    seen = picture if is_wide else picture.convert(mode)
    if seen.size != size:
        # Pillow filters 16 bits as floats only.
        seen = seen.convert("F") if is_wide else seen
        seen = seen.resize(size, _pillow("").Resampling.LANCZOS)
    if is_wide:
        return _16_bits(np.asarray(seen))
    return np.asarray(seen, np.uint8)


def picture_shape(source: bytes | Path, *, where: str) -> tuple[int, int]:
    """Return the height and the width of a picture, from its beginning alone.

    Raises:
        PictureError: It is no picture.
        DatasetError: Pillow is missing.
    """
    with _opened(source, where, FORMATS) as picture:
        width, height = picture.size
        # A camera that was held upright notes that its picture must be turned.
        is_turned = picture.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
        return (width, height) if is_turned else (height, width)


@contextmanager
def _opened(source: bytes | Path, where: str, formats: Sequence[str]) -> Iterator[Any]:
    """Lend a picture; what is wrong with it becomes one sentence."""
    image = _pillow(where)
    kind = "picture" if formats is FORMATS else f"{' or '.join(formats)} picture"
    try:
        with _begun(source, image, formats) as picture:
            yield picture
    except (image.DecompressionBombError, image.DecompressionBombWarning) as error:
        raise PictureError(f"{where}: too large: {error}") from error
    # Pillow has no list of what it raises for a damaged picture.
    except Exception as error:
        if isinstance(error, DatasetError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{where}: expected a {kind}, but {reason}") from error


def _begun(
    source: bytes | Path,
    image: Any,  # noqa: ANN401 - Pillow is an extra
    formats: Sequence[str],
) -> Any:  # noqa: ANN401 - as above
    """Return a picture of which only the beginning was read."""
    place = io.BytesIO(source) if isinstance(source, bytes) else source
    # What unpacks to far more than it should is a warning of Pillow's at first.
    with _warnings_of_notes_ignored():
        warnings.simplefilter("error", image.DecompressionBombWarning)
        return image.open(place, formats=formats)


def _upright(picture: Any) -> Any:  # noqa: ANN401 - Pillow is an extra
    """Return a picture turned as its camera noted; as it is where the note is damaged."""
    from PIL import ImageOps  # noqa: PLC0415

    try:
        with _warnings_of_notes_ignored():
            picture.getexif()  # which keeps what it found
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - a broken note does not break the pixels
        return picture


@contextmanager
def _warnings_of_notes_ignored() -> Iterator[None]:
    """Ignore what Pillow warns of in a camera's note; the filters of warnings are all threads'."""
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Corrupt EXIF", UserWarning)
        yield


def _opaque(picture: Any, page: str) -> Any:  # noqa: ANN401 - Pillow is an extra
    """Return what is seen of a picture on a page of one colour."""
    image = _pillow("")
    if picture.mode.startswith("I"):
        return image.fromarray(_opaque_16_bits(picture, page))
    if not picture.has_transparency_data:
        return picture
    seen = picture.convert("RGBA")
    return image.alpha_composite(image.new("RGBA", seen.size, page), seen)


def _opaque_16_bits(picture: Any, page: str) -> npt.NDArray[np.uint16]:  # noqa: ANN401 - as above
    """Return 16 bits of grey, of which one value may be the transparent one."""
    values: npt.NDArray[Any] = np.asarray(picture)
    if (key := picture.info.get("transparency")) is not None:
        values = np.where(values == key, _MAX_16_BITS if page == "white" else 0, values)
    return _16_bits(values)


def _16_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    wide: npt.NDArray[np.uint16] = np.rint(np.clip(values, 0, _MAX_16_BITS)).astype(np.uint16)
    return wide


def _pillow(where: str) -> Any:  # noqa: ANN401 - Pillow is an extra
    try:
        from PIL import Image  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"{where}: pictures need Pillow: pip install 'mlpserve[pictures]'"
        ) from error
    return Image
