"""Messages of the Open Inference Protocol, as far as the benchmark sends and reads them.

Written by hand from the protocol's field numbers: the generated code of two peers cannot live in
one process, and none of it is needed for one message each way.
"""

from collections.abc import Iterator
from typing import Final

_VARINT: Final = 0
_EIGHT_BYTES: Final = 1
_LENGTH: Final = 2
_FOUR_BYTES: Final = 5

# ModelInferRequest, its InferInputTensor, and ModelInferResponse.
_MODEL_NAME, _INPUTS, _RAW_INPUT_CONTENTS = 1, 5, 7
_NAME, _DATATYPE, _SHAPE = 1, 2, 3
_OUTPUTS, _RAW_OUTPUT_CONTENTS = 5, 6
# InferOutputTensor and InferTensorContents.
_CONTENTS, _FP32_CONTENTS = 5, 6


def infer_request(model: str, data: bytes, shape: tuple[int, int]) -> bytes:
    """Return a ModelInferRequest of one UINT8 tensor named "images", its data raw."""
    tensor = (
        _field(_NAME, b"images")
        + _field(_DATATYPE, b"UINT8")
        + _field(_SHAPE, b"".join(map(_varint, shape)))
    )
    return (
        _field(_MODEL_NAME, model.encode())
        + _field(_INPUTS, tensor)
        + _field(_RAW_INPUT_CONTENTS, data)
    )


def first_output(response: bytes) -> bytes:
    """Return the bytes of the first tensor of a ModelInferResponse of float32 tensors."""
    fields = list(_fields(response))
    raw = [value for number, value in fields if number == _RAW_OUTPUT_CONTENTS]
    if raw:
        return raw[0]
    tensor = next(value for number, value in fields if number == _OUTPUTS)
    contents = next(value for number, value in _fields(tensor) if number == _CONTENTS)
    return b"".join(value for number, value in _fields(contents) if number == _FP32_CONTENTS)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each field; those of a varint are empty."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        kind, length = tag & 7, 0
        if kind == _VARINT:
            _, position = _read_varint(message, position)
        elif kind == _LENGTH:
            length, position = _read_varint(message, position)
        else:
            length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[kind]
        yield tag >> 3, message[position : position + length]
        position += length


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            return value, position
