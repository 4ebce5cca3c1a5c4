"""Bodies of HTTP: inference requests and responses as JSON, also with binary tensors.

JSON, or: JSON | values of the input -- how long the JSON is stands in a header
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from mlpserve.server.errors import RequestError, TooLargeError
from mlpserve.server.oip.tensors import DATATYPES, DTYPES, INPUT_NAME
from mlpserve.server.oip.values import (
    MAX_DIMENSIONS,
    MAX_OUTPUTS,
    InferRequest,
    InferResponse,
    InputTensor,
    OutputTensor,
    Parameters,
    RequestedOutput,
    check_one_input,
)

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_SIZE: Final = "binary_data_size"
_BINARY: Final = "binary_data"
_ALL_BINARY: Final = "binary_data_output"
# What Python keeps of JSON, by its signs, in values of a list: a comma stands for such a value.
_WEIGHTS: Final[Mapping[bytes, int]] = {b",": 1, b"[": 2, b":": 3, b"{": 4}
_HALVES: Final = ("FP16", "BF16")
_LENGTH: Final = struct.Struct("<I")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An inference request, and how its caller wants the outputs.

    Attributes:
        request: The request.
        binary_outputs: The names of the outputs that are to be binary.
    """

    request: InferRequest
    binary_outputs: frozenset[str]


def read_body(
    body: bytes,
    header_length: str | None,
    *,
    model_name: str,
    model_version: str,
    max_values: int,
    image_form: Callable[[], tuple[str, int]],
) -> HttpRequest:
    """Return the request that a body is.

    Args:
        body: The body.
        header_length: What the header says of the length of its JSON; None where there is none.
        model_name: The model's name, from the path.
        model_version: The version, from the path.
        max_values: The most values that its JSON may have.
        image_form: Finds out the datatype, and the number of values of an image, where a body is
            nothing but images.

    Raises:
        RequestError: It is none.
        TooLargeError: Its JSON has more than so many values.
        ServerError: ``image_form`` raised it.
    """
    length = _length(header_length, len(body))
    if length == 0 and header_length is not None:
        return _images_only(body, model_name, model_version, *image_form())
    text = body[:length]
    _check_json(text, max_values)
    document = _document(text)
    outputs = _list(document, "outputs", MAX_OUTPUTS)
    parameters = _parameters(document)
    inputs = document.get("inputs")
    check_one_input(len(inputs) if isinstance(inputs, list) else 0, model_name)
    request = InferRequest(
        model_name,
        model_version,
        _member(document, "id", str, ""),
        _input(_list(document, "inputs", 1)[0], body[length:]),
        [RequestedOutput(_member(each, "name", str), _parameters(each)) for each in outputs],
        parameters,
    )
    return HttpRequest(request, _binary_outputs(request))


def read_options(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object of a body; an empty one where it is empty.

    Raises:
        RequestError: It is none, or its parameters are no object.
    """
    options = _document(body) if body else {}
    _member(options, "parameters", dict, {})
    return options


def write_body(response: InferResponse, binary_outputs: frozenset[str]) -> tuple[bytes, int | None]:
    """Return the body of a response, and the length of its JSON where values follow it."""
    document = {
        "model_name": response.model_name,
        "model_version": str(response.model_version),
        **({"id": response.id} if response.id else {}),
        "outputs": [_output(output, binary_outputs) for output in response.outputs],
    }
    written = json.dumps(document, separators=(",", ":")).encode()
    values = [output.data for output in response.outputs if output.name in binary_outputs]
    return b"".join((written, *values)), len(written) if values else None


def _length(header: str | None, size: int) -> int:
    if header is None:
        return size
    if not (header.isascii() and header.isdigit()) or len(header) > len(str(size)):
        raise _wrong_length(header, size)
    if int(header) > size:
        raise _wrong_length(header, size)
    return int(header)


def _wrong_length(header: str, size: int) -> RequestError:
    return RequestError(
        f"{HEADER_LENGTH}: expected the length of the JSON, at most the {size} bytes of the body, "
        f"got {header[:20]!r}"
    )


def _images_only(
    body: bytes, name: str, version: str, datatype: str, values_per_image: int
) -> HttpRequest:
    """Return the request of a body that is nothing but the values of images."""
    count = len(body) // (values_per_image * DTYPES[datatype].itemsize)
    tensor = InputTensor(INPUT_NAME, datatype, (count, values_per_image), body)
    return HttpRequest(InferRequest(name, version, "", tensor), frozenset())


def _check_json(text: bytes, max_values: int) -> None:
    """Refuse JSON that would take far more memory than it has bytes, before it is parsed."""
    values = sum(text.count(sign) * weight for sign, weight in _WEIGHTS.items())
    if not text.isascii():  # Python may keep each letter in four bytes, twice
        values += len(text)
    if values > max_values:
        raise TooLargeError(
            f"inputs: expected at most {max_values} values in JSON, got more; send fewer images at "
            "once, or send them in binary"
        )


def _document(data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data, parse_constant=_no_number, object_pairs_hook=_without_nulls)
    except (ValueError, RecursionError) as error:
        raise RequestError("failed to parse the request JSON buffer: it is not JSON") from error
    if not isinstance(document, dict):
        raise RequestError("failed to parse the request JSON buffer: it is not an object")
    return document


def _without_nulls(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose members that are ``null`` are absent, as many libraries write them."""
    return {name: value for name, value in members if value is not None}


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _input(described: Mapping[str, Any], binary: bytes) -> InputTensor:
    shape = _list(described, "shape", MAX_DIMENSIONS, of=int)
    datatype = _member(described, "datatype", str)
    parameters = _parameters(described)
    if _SIZE in parameters:
        if "data" in described:
            raise RequestError(f"inputs: expected data or {_SIZE}, got both")
        if type(parameters[_SIZE]) is not int or parameters[_SIZE] != len(binary):
            raise RequestError(
                f"{_SIZE}: expected the {len(binary)} bytes that follow the JSON, "
                f"got {str(parameters[_SIZE])[:20]}"
            )
        data: Any = binary
    elif binary:
        raise RequestError(f"inputs: expected {_SIZE}, because {len(binary)} bytes follow the JSON")
    else:
        data = _values_from_json(described.get("data"), datatype)
    return InputTensor(_member(described, "name", str), datatype, tuple(shape), data, parameters)


def _binary_outputs(request: InferRequest) -> frozenset[str]:
    default = request.parameters.get(_ALL_BINARY, False)
    if not request.outputs:
        return frozenset(DATATYPES) if default is True else frozenset()
    return frozenset(
        output.name for output in request.outputs if output.parameters.get(_BINARY, default) is True
    )


def _output(tensor: OutputTensor, binary_outputs: frozenset[str]) -> Mapping[str, Any]:
    described = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    if tensor.name in binary_outputs:
        return {**described, "parameters": {_SIZE: len(tensor.data)}}
    return {**described, "data": _values_to_json(tensor)}


def _values_from_json(data: object, datatype: str) -> npt.NDArray[Any]:
    """Return the numbers of an input, one after the other.

    Args:
        data: What its field holds: a list of numbers, or lists of lists of them.
        datatype: What it says that they are.

    Raises:
        RequestError: They are not, or the datatype can be sent in binary only.
    """
    if datatype not in DTYPES:
        return np.empty(0)  # what is wrong with the datatype is said where datatypes are known
    if datatype in _HALVES:
        raise RequestError(f"data: there is no JSON of {datatype}; send it in binary")
    dtype = DTYPES[datatype]
    numbers = _flat(data)
    is_whole = dtype.kind in "iu"
    if not set(map(type, numbers)) <= ({int} if is_whole else {int, float}):
        raise RequestError(f"data: expected numbers of {datatype}, got something else among them")
    try:
        array = np.array(numbers, np.int64 if is_whole else np.float64)
    except OverflowError as error:
        raise RequestError(
            f"data: expected numbers of {datatype}, got one far too large"
        ) from error
    with np.errstate(over="ignore"):  # what is infinite is refused as out of range
        return array if is_whole else array.astype(dtype)


def _values_to_json(tensor: OutputTensor) -> list[Any]:
    """Return the values of an output; read as float32, the numbers have the same bits."""
    if tensor.datatype == "BYTES":
        return [text.decode() for text in _texts(tensor.data)]
    values: list[Any] = np.frombuffer(tensor.data, DTYPES[tensor.datatype]).tolist()
    return values


def _flat(data: object) -> list[Any]:
    """Return lists of lists as one; the shape says how they are meant."""
    for _ in range(MAX_DIMENSIONS):
        if not isinstance(data, list):
            break
        kinds = set(map(type, data))
        if list not in kinds:
            return data
        if kinds != {list}:
            break
        data = list(chain.from_iterable(data))
    raise RequestError("data: expected a list of numbers, or lists of lists of the same depth")


def _texts(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size + length
        yield data[start - length : start]


def _parameters(document: Mapping[str, Any]) -> Parameters:
    return {
        name: value
        for name, value in _member(document, "parameters", dict, {}).items()
        if isinstance(value, bool | int | float | str)
    }


def _list(document: Mapping[str, Any], name: str, max_items: int, *, of: type = dict) -> list[Any]:
    found = _member(document, name, list, [])
    if len(found) > max_items:
        raise RequestError(f"{name}: expected at most {max_items}, got {len(found)}")
    if not all(type(each) is of for each in found):
        raise RequestError(f"{name}: expected a list of {_JSON_NAMES[of]}, got something else")
    return found


def _member(
    document: Mapping[str, Any], name: str, kind: type[_T], default: _T | None = None
) -> _T:
    found = document.get(name, default)
    if not isinstance(found, kind):
        raise RequestError(f"{name}: expected {_JSON_NAMES[kind]}, got something else")
    return found


_JSON_NAMES: Final[Mapping[type, str]] = {
    dict: "objects",
    int: "whole numbers",
    list: "a list",
    str: "a text",
}
