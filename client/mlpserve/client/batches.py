"""How arrays of images become the batches of requests."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.client.errors import InvalidRequestError
from mlpserve.v1 import prediction_pb2

# Enough that a request's fixed cost does not count, little enough that several are under way soon.
MAX_IMAGES_PER_REQUEST: Final = 1024
# Below the 4 MiB at which gRPC, and what stands between client and server, refuses by default.
_MAX_BYTES_PER_REQUEST: Final = 3 * 1024 * 1024


def as_wire_array(images: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return images as (N, D) uint8 or little-endian float32, whichever is near; else refuse them.

    Raises:
        InvalidRequestError: There is no image, there are no images but one without a leading axis,
            the dtype is neither uint8 nor float, or the rows of a list differ in length.
    """
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise InvalidRequestError(f"images: expected an array: {error}") from error
    if array.ndim < 2 or array.size == 0:  # noqa: PLR2004 - a count and at least one more axis
        raise InvalidRequestError(
            f"images: expected (count, ...) with at least one image, got shape {array.shape}; "
            "a single image needs a leading axis: image[numpy.newaxis]"
        )
    flat = array.reshape(len(array), -1)
    if flat.dtype == np.uint8:
        return flat
    if flat.dtype.kind != "f":
        raise InvalidRequestError(
            f"images: expected uint8 (0 to 255) or float (0 to 1), got {array.dtype}; "
            "if all values are from 0 to 255, convert with images.astype(numpy.uint8)"
        )
    # What float32 cannot hold becomes infinite, and infinity is refused by the server.
    with np.errstate(over="ignore"):
        return flat.astype("<f4", copy=False)


def split(
    images: npt.NDArray[Any], *, max_images: int = MAX_IMAGES_PER_REQUEST
) -> Iterator[npt.NDArray[Any]]:
    """Yield the (N, D) images in runs that are each small enough for one request.

    Raises:
        InvalidRequestError: ``max_images`` is below 1.
    """
    if max_images < 1:
        raise InvalidRequestError(f"max_images_per_request: expected at least 1, got {max_images}")
    bytes_per_image = images.shape[1] * images.itemsize
    fitting = max(1, _MAX_BYTES_PER_REQUEST // bytes_per_image)
    step = min(max_images, fitting)
    for start in range(0, len(images), step):
        yield images[start : start + step]


def encode(images: npt.NDArray[Any]) -> prediction_pb2.ImageBatch:
    """Return (N, D) images, as ``as_wire_array`` returns them, as a message."""
    is_uint8 = images.dtype == np.uint8
    return prediction_pb2.ImageBatch(
        count=len(images),
        data_type=(
            prediction_pb2.DATA_TYPE_UINT8 if is_uint8 else prediction_pb2.DATA_TYPE_FLOAT32
        ),
        data=images.tobytes(),
    )
