"""The images of an input, in whichever datatype and shape, as the request path takes them.

Integers are values of pixels, 0 to 255; floating-point numbers go from 0 to 1. A conversion either
loses nothing or is refused.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.server.errors import RequestError, UnsupportedError
from mlpserve.server.inference.compiled import CompiledModel, Images
from mlpserve.server.inference.decoding import FLOAT32, UINT8, check_range
from mlpserve.server.oip.datatypes import DTYPES, numbers
from mlpserve.server.oip.requests import SHARED_MEMORY, InputTensor, shortened

INPUT_NAME: Final = "images"
_FIELD: Final = f"input '{INPUT_NAME}'"
_MOST_SHOWN: Final = 8


def decode_images(tensor: InputTensor, model: CompiledModel, *, max_batch_images: int) -> Images:
    """Return the (N, D) images of an input.

    Args:
        tensor: The input.
        model: What is asked.
        max_batch_images: The most images that a request may carry.

    Raises:
        RequestError: It is not 1 to ``max_batch_images`` images of what the model takes.
        UnsupportedError: The values are somewhere else, in shared memory.
    """
    name = model.metadata.name
    if tensor.name != INPUT_NAME:
        raise RequestError(
            f"unexpected inference input {shortened(tensor.name)!r} for model '{name}', "
            f"expected '{INPUT_NAME}'"
        )
    if SHARED_MEMORY in tensor.parameters:
        raise UnsupportedError(f"{_FIELD}: shared memory is not supported")
    if tensor.datatype not in DTYPES:
        raise RequestError(
            f"unexpected datatype for {_FIELD} for model '{name}'. "
            f"Expected {', '.join(DTYPES)}, got {shortened(tensor.datatype)}"
        )
    count = _checked_count(tensor, model, max_batch_images)
    size = count * model.metadata.input.values_per_image
    values = _values(tensor, name, size)
    return _converted(values, tensor.datatype).reshape(count, -1)


def _checked_count(tensor: InputTensor, model: CompiledModel, max_batch_images: int) -> int:
    spec, name = model.metadata.input, model.metadata.name
    flat, shaped = (spec.values_per_image,), tuple(spec.shape)
    if tensor.shape[1:] not in {flat, shaped}:
        expected = " or ".join(_listed((-1, *shape)) for shape in dict.fromkeys((flat, shaped)))
        raise RequestError(
            f"unexpected shape for {_FIELD} for model '{name}'. "
            f"Expected {expected}, got {_listed(tensor.shape)}"
        )
    count = tensor.shape[0]
    if not 1 <= count <= max_batch_images:
        raise RequestError(
            f"inference request batch-size must be from 1 to {max_batch_images} for '{name}', "
            f"got {count}"
        )
    return count


def _values(tensor: InputTensor, model_name: str, size: int) -> npt.NDArray[Any]:
    """Return so many numbers, whichever way they were sent."""
    if isinstance(tensor.data, bytes):
        expected = size * DTYPES[tensor.datatype].itemsize
        if len(tensor.data) != expected:
            raise RequestError(
                f"input byte size mismatch for {_FIELD} for model '{model_name}'. "
                f"Expected {expected}, got {len(tensor.data)}"
            )
        return numbers(tensor.data, tensor.datatype)
    if len(tensor.data) != size:
        raise RequestError(
            f"unexpected number of values for {_FIELD} for model '{model_name}'. "
            f"Expected {size}, got {len(tensor.data)}"
        )
    return tensor.data


def _converted(values: npt.NDArray[Any], datatype: str) -> Images:
    if values.dtype == UINT8:
        images: Images = values
        return images
    if values.dtype.kind == "f":
        return _from_floats(values, datatype)
    return _from_integers(values, datatype)


def _from_floats(values: npt.NDArray[Any], datatype: str) -> Images:
    check_range(values, f"{_FIELD} ({datatype})")
    images: Images = values.astype(FLOAT32, copy=False)
    if values.dtype.itemsize > FLOAT32.itemsize and not np.array_equal(images, values):
        lost = values[images != values][0]
        raise RequestError(
            f"{_FIELD}: expected {datatype} values that are FP32 values as well, got {lost!r}; "
            "round them, and send FP32"
        )
    return images


def _from_integers(values: npt.NDArray[Any], datatype: str) -> Images:
    highest = min(np.iinfo(np.uint8).max, np.iinfo(DTYPES[datatype]).max)
    if values.min() < 0 or values.max() > highest:
        raise RequestError(
            f"{_FIELD}: expected {datatype} values from 0 to {highest}, "
            f"got {values.min()} to {values.max()}"
        )
    images: Images = values.astype(UINT8)
    return images


def _listed(shape: tuple[int, ...]) -> str:
    more = ",..." if len(shape) > _MOST_SHOWN else ""
    return f"[{','.join(map(str, shape[:_MOST_SHOWN]))}{more}]"
