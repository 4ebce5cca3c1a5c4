"""Scan of a ModelInferRequest on the wire: what parsing would set aside, counted before it does.

Parsed, an empty input of two bytes takes 90, and a number of one byte 15.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from mlpserve.server.errors import TooLargeError

_SMALL_BYTES: Final = 1 << 16  # what takes little, whatever it is
_MAX_FIELDS: Final = 1000  # of a message that is larger; a request as libraries write it has 30
_VARINTS: Final[Mapping[int, Any]] = {}
# The fields that take more than their bytes: inputs with their shape and contents, and outputs.
# Source: inference.proto of this package.
_FIELDS: Final[Mapping[int, Any]] = {
    5: {3: _VARINTS, 5: dict.fromkeys(range(1, 6), _VARINTS)},
    6: {},
}
# Source: protobuf.dev, "Encoding".
_VARINT, _FIXED_64, _LENGTH, _GROUP, _END_OF_GROUP, _FIXED_32 = range(6)
_KIND_BITS: Final = 3
_MAX_VARINT_BYTES: Final = 10
_HAS_MORE: Final = 0x80


def check_fields(data: bytes, max_values: int) -> None:
    """Check that a ModelInferRequest is parsed to a small multiple of what it takes on the wire.

    What is no such message passes, as far as it can be read: parsing refuses it.

    Args:
        data: The message.
        max_values: The most values that it may have outside of raw contents.

    Raises:
        TooLargeError: It has more, or very many fields.
    """
    if len(data) > _SMALL_BYTES:
        _Scan(max_values).message(memoryview(data), _FIELDS)


class _Scan:
    def __init__(self, max_values: int) -> None:
        self._max_values = max_values
        self._values_left = max_values
        self._fields_left = _MAX_FIELDS

    def message(self, data: memoryview, fields: Mapping[int, Any]) -> None:
        at = 0
        while at < len(data):
            self._count_field()
            tag, at = _varint(data, at)
            number, kind = tag >> _KIND_BITS, tag & (1 << _KIND_BITS) - 1
            if kind == _VARINT:
                _, at = _varint(data, at)
            elif kind == _LENGTH:
                length, at = _varint(data, at)
                if number in fields:
                    self._part(data[at : at + length], fields[number])
                at += length
            elif kind in (_FIXED_32, _FIXED_64):
                at += 4 if kind == _FIXED_32 else 8
            elif kind not in (_GROUP, _END_OF_GROUP):
                return

    def _part(self, data: memoryview, fields: Mapping[int, Any]) -> None:
        if fields is not _VARINTS:
            self.message(data, fields)
            return
        self._values_left -= int(np.count_nonzero(np.frombuffer(data, np.uint8) < _HAS_MORE))
        if self._values_left < 0:
            raise TooLargeError(
                f"contents: expected at most {self._max_values} values, got more; send fewer "
                "images at once, or send them raw"
            )

    def _count_field(self) -> None:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise TooLargeError(
                f"expected at most {_MAX_FIELDS} fields in a message of more than {_SMALL_BYTES} "
                "bytes, got more"
            )


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number and where it ends; the end of the data where it is none."""
    value = 0
    for index, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & _HAS_MORE - 1) << 7 * index
        if byte < _HAS_MORE:
            return value, at + index + 1
    return 0, len(data)
