"""Columns of Arrow: images as rows of values, without a copy where there need be none, and answers.

Needs pyarrow, the extra ``tables``, which is imported when the first column comes.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.compiled import Classified
from mlpserve.model.errors import ImagesError

_ACCEPTED: Final = "lists of numbers, or the bytes of uint8 or of little-endian float32 values"
_PICTURES: Final = (b"\x89PNG", b"\xff\xd8\xff")
_FLOAT32: Final = np.dtype("<f4")


def arrow_column(data: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return whatever is a column of Arrow as an array or a chunked array of pyarrow.

    Args:
        data: That, or what hands its data over as the Arrow PyCapsule interface says, as a Series
            of polars does.

    Raises:
        ImagesError: It is neither.
        ModuleNotFoundError: pyarrow is not installed.
    """
    arrow = pyarrow()
    if isinstance(data, arrow.Array | arrow.ChunkedArray):
        return data
    if hasattr(data, "__arrow_c_stream__"):
        return arrow.chunked_array(data)
    if hasattr(data, "__arrow_c_array__"):
        return arrow.array(data)
    raise ImagesError(f"expected a column of Arrow, got {type(data).__name__}")


def image_values(column: Any, width: int) -> npt.NDArray[Any]:  # noqa: ANN401 - pyarrow has no types
    """Return (N, width) values of the images of an array of pyarrow.

    Lists of any kind, nested or not, and tensors give the numbers that they hold, in place; so do
    bytes, which are uint8 values, or little-endian float32 ones where there are four times as many.

    Args:
        column: The array.
        width: How many values an image has.

    Raises:
        ImagesError: The column is of another type, an image or a value is missing, or an image has
            another number of values; the message says in which row.
    """
    arrow = pyarrow()
    if isinstance(column, arrow.FixedShapeTensorArray):
        tensors = column.storage  # whose rows may have another order of the axes than they have
        _refuse_nulls(tensors)
        if not len(column):
            return np.empty((0, width), np.float32)
        values = column.to_numpy_ndarray()
        values = values.reshape(len(values), -1)
        _check_length(values.shape[1], width)
        return np.asarray(values)
    column = getattr(column, "storage", column)
    if _is_list(column.type):
        return _list_values(column, width)
    if _is_bytes(column.type):
        return _byte_values(column, width)
    raise ImagesError(f"expected {_ACCEPTED}, got {column.type}")


def answer_column(found: Classified, class_labels: Sequence[str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return what a network says of N images as an array of pyarrow; see ``answer_type``."""
    arrow = pyarrow()
    count, classes = found.probabilities.shape
    ends = arrow.array(np.arange(count + 1, dtype=np.int32) * np.int32(classes))
    values = arrow.array(found.probabilities.reshape(-1))
    fields = list(answer_type())
    columns = [
        arrow.array(class_labels, arrow.string()).take(arrow.array(found.labels)),
        arrow.array(found.probabilities[np.arange(count), found.labels]),
        arrow.ListArray.from_arrays(ends, values, type=fields[2].type),
    ]
    return arrow.StructArray.from_arrays(columns, fields=fields)


def answer_type() -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the type of the answer to an image: its label and probability, and all probabilities.

    Lists of one length would say more, but Spark cannot read them.
    """
    arrow = pyarrow()
    return arrow.struct(
        {
            "label": arrow.string(),
            "probability": arrow.float32(),
            "probabilities": arrow.list_(arrow.float32()),
        }
    )


def pyarrow() -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return pyarrow.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        import pyarrow as arrow  # noqa: ICN001, PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "columns of Arrow need pyarrow: pip install 'mlpserve[tables]'"
        ) from error
    return arrow


def _list_values(column: Any, width: int) -> npt.NDArray[Any]:  # noqa: ANN401 - pyarrow has no types
    """Return (N, width) values of N lists, in place where they are numbers side by side."""
    if not _holds_numbers(column.type):
        raise ImagesError(f"expected {_ACCEPTED}, got {column.type}")
    flat, length = column, 1  # how many of them are an image
    while _is_list(flat.type) and len(flat):
        _refuse_nulls(flat, length)
        wanted = None if _is_list(flat.type.value_type) or flat is not column else width
        length *= _list_length(flat, wanted, length)
        flat = flat.flatten()
    if not len(column):
        return np.empty((0, width), np.uint8)
    _check_length(length, width)
    _refuse_nulls(flat, length)
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(column), width)


def _list_length(lists: Any, wanted: int | None, lists_per_row: int) -> int:  # noqa: ANN401
    """Return how long each of some lists is; the first says it where nothing else does."""
    if pyarrow().types.is_fixed_size_list(lists.type):
        return int(lists.type.list_size)
    lengths = lists.value_lengths().to_numpy()
    wanted = int(lengths[0]) if wanted is None else wanted
    others = np.flatnonzero(lengths != wanted)
    if len(others):
        row, got = _row(others[0] // lists_per_row), lengths[others[0]]
        raise ImagesError(f"{row}: expected a list of {wanted} values, got one of {got}")
    return wanted


def _byte_values(column: Any, width: int) -> npt.NDArray[Any]:  # noqa: ANN401 - pyarrow has no types
    """Return (N, width) values of N byte strings, in place."""
    _refuse_nulls(column)
    arrow = pyarrow()
    if arrow.types.is_fixed_size_binary(column.type):
        column = column.cast(arrow.large_binary())
    elif arrow.types.is_binary_view(column.type):  # older releases of pyarrow cannot cast these
        column = arrow.array(column.to_pylist(), arrow.large_binary())
    if not len(column):
        return np.empty((0, width), np.uint8)
    offset_dtype = np.int64 if arrow.types.is_large_binary(column.type) else np.int32
    _, offsets, content = column.buffers()
    offsets = np.frombuffer(offsets, offset_dtype)[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    size = width if lengths[0] != width * _FLOAT32.itemsize else width * _FLOAT32.itemsize
    others = np.flatnonzero(lengths != size)
    if len(others):
        raise ImagesError(_wrong_bytes(column, int(others[0]), width))
    dtype = np.dtype(np.uint8) if size == width else _FLOAT32
    values = np.frombuffer(content, dtype, len(column) * width, int(offsets[0]))
    return values.reshape(len(column), width)


def _wrong_bytes(column: Any, row: int, width: int) -> str:  # noqa: ANN401 - pyarrow has no types
    content = column[row].as_py()
    what = (
        "those of a PNG or JPEG, which has to be decoded"
        if content.startswith(_PICTURES)
        else f"{len(content)}"
    )
    return (
        f"{_row(row)}: expected {width} bytes of uint8 values, or {width * _FLOAT32.itemsize} of "
        f"float32 in all rows, got {what}"
    )


def _check_length(length: int, width: int) -> None:
    if length != width:
        raise ImagesError(f"expected images of {width} values, got {length} an image")


def _refuse_nulls(array: Any, per_row: int = 1) -> None:  # noqa: ANN401 - pyarrow has no types
    if array.null_count:
        gaps = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
        raise ImagesError(f"{_row(gaps[0] // per_row)}: expected a value, got null")


def _row(row: int) -> str:
    return f"row {row} of the batch, from 0"


def _is_list(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    types = pyarrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _holds_numbers(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    types = pyarrow().types
    while _is_list(kind):
        kind = kind.value_type
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_bytes(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    types = pyarrow().types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )
