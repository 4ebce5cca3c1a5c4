"""Arrays of images: whatever holds them, as rows of uint8 or float32 values, none of them changed.

Taken are arrays of any numbers, lists of them, frames of pandas and polars, tensors of PyTorch, and
pictures of Pillow. None of these libraries is imported here.
"""

import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.client.errors import InvalidRequestError

# Every whole number up to this one is a float32.
_MAX_EXACT: Final = 2**24
_GREY_MODES: Final = ("1", "L", "I", "F", "RGB")  # of Pillow, as they are; and I;16 with its kin
# A picture with no value above this fourth of its range is as good as black: it holds other values.
_DARK: Final = 4


def as_wire_array(images: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return images as (N, D) uint8 or little-endian float32 of the same values; else refuse them.

    - uint8 and floating-point numbers stay what they are.
    - Other integers become uint8 where all are from 0 to 255, else float32.
    - Bools become 0.0 and 1.0.

    Args:
        images: (N, ...), as an array, a list, a frame of pandas or polars, a tensor of PyTorch, or
            a list of tensors or of pictures of Pillow. A single picture is one image.

    Raises:
        InvalidRequestError: There is no image, there are no images but one without a leading axis,
            the values are no numbers, or the rows of a list differ in length.
    """
    array = _array(images)
    if array.ndim < 2 or array.size == 0:  # noqa: PLR2004 - a count and at least one more axis
        raise InvalidRequestError(
            f"images: expected (count, ...) with at least one image, got shape {array.shape}; "
            "a single image needs a leading axis: image[numpy.newaxis]",
            field="images",
        )
    flat = array.reshape(len(array), -1)
    return flat if flat.dtype == np.uint8 else _values(flat)


def picture_values(
    pixels: npt.NDArray[np.uint8 | np.uint16], value_range: tuple[float, float] | None
) -> npt.NDArray[Any]:
    """Return a picture's values as a model takes them: black is the lowest, white the highest.

    A picture whose values are all in the model's range, and which would be as good as black
    otherwise, holds these values themselves, such as 12 bits in a PNG of 16.

    Args:
        pixels: One picture, of any shape.
        value_range: The lowest and the highest value that the model takes; None where it takes
            uint8 from 0 to 255, and floats from 0 to 1.

    Returns:
        uint8 or float32, of the shape of ``pixels``.
    """
    white = int(np.iinfo(pixels.dtype).max)
    byte = int(np.iinfo(np.uint8).max)
    low, high = (0.0, float(byte)) if value_range is None else value_range
    if low == 0 and high * _DARK < white and pixels.max(initial=0) <= high:
        return pixels.astype(np.uint8 if high <= byte else np.float32, copy=False)
    if value_range is None:
        # A picture of 16 bits has one byte in the place of two, as uint8 models have learned it.
        return pixels if white == byte else (pixels >> 8).astype(np.uint8)
    values: npt.NDArray[Any] = low + pixels * ((high - low) / white)
    return values.clip(low, high).astype(np.float32)


def _array(images: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - whatever has values
    """Return whatever holds images as an array; a single picture as one of one image."""
    if isinstance(images, np.ndarray):
        return images
    try:
        if _is_picture(images):
            images = [images]
        if isinstance(images, list | tuple) and images and not _is_nested(images[0]):
            images = [_plain(image) for image in images]
        found: npt.NDArray[Any] = np.asarray(_plain(images))
    # What other libraries raise for values that NumPy cannot hold is theirs to choose.
    except Exception as error:
        raise InvalidRequestError(f"images: expected an array: {error}", field="images") from error
    return found


def _is_nested(value: object) -> bool:
    return isinstance(value, list | tuple | int | float | str | np.ndarray)


def _is_picture(value: object) -> bool:
    # Who has a picture has imported Pillow.
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return a tensor or a picture as an array, and all else as it is."""
    if _is_picture(value):
        return np.asarray(_with_values(value))
    if hasattr(value, "detach"):  # a tensor of PyTorch that learns gives no array otherwise
        return np.asarray(value.detach())
    return value


def _with_values(picture: Any) -> Any:  # noqa: ANN401 - a PIL.Image.Image
    """Return a picture whose numbers are its greys or colours, and not those of a palette."""
    if picture.mode in _GREY_MODES or picture.mode.startswith("I;16"):
        return picture
    if picture.mode in ("LA", "La"):
        return picture.convert("L")
    colours = picture.convert("RGB")
    red, green, blue = colours.split()
    is_grey = red.tobytes() == green.tobytes() == blue.tobytes()
    return red if is_grey else colours


def _values(flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (N, D) numbers that are not uint8 as uint8 or float32."""
    if flat.dtype == object:
        flat = _numbers_of(flat)
    if flat.dtype.kind in "iu":
        return _integers(flat)
    if flat.dtype.kind not in "bf":
        raise InvalidRequestError(
            f"images: expected integers, floating-point numbers or bools, got {flat.dtype}"
            + ("; numpy.abs(images) has their magnitudes" if flat.dtype.kind == "c" else ""),
            field="images",
        )
    # What float32 cannot hold becomes infinite, and infinity is refused by the server.
    with np.errstate(over="ignore"):
        return flat.astype("<f4", copy=False)


def _integers(flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    lowest, highest = int(flat.min()), int(flat.max())
    if lowest >= 0 and highest <= np.iinfo(np.uint8).max:
        return flat.astype(np.uint8)
    if max(-lowest, highest) > _MAX_EXACT:
        raise InvalidRequestError(
            f"images: expected integers from {-_MAX_EXACT} to {_MAX_EXACT}, which float32 holds "
            f"exactly, got {lowest} to {highest}",
            field="images",
        )
    return flat.astype("<f4")


def _numbers_of(flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return Python objects, as a frame with gaps or of mixed columns has them, as numbers."""
    kinds = {type(value) for value in flat.flat}
    is_number = all(issubclass(kind, bool | int | float | np.number | np.bool_) for kind in kinds)
    if not is_number:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InvalidRequestError(f"images: expected numbers, got objects: {names}", field="images")
    is_whole = all(issubclass(kind, int | np.integer) for kind in kinds)
    try:
        return flat.astype(np.int64 if is_whole else np.float64)
    except OverflowError as error:
        raise InvalidRequestError(
            "images: expected numbers, got one far too large", field="images"
        ) from error
