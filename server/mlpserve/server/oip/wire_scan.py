"""Scan of a ModelInferRequest on the wire: what parsing would set aside, counted before it does.

Parsed, an empty input of two bytes takes 90, and a number of one byte 15.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from mlpserve.server.errors import TooLargeError
from mlpserve.server.grpc_api.wire import (
    END_OF_GROUP,
    FIXED_32,
    FIXED_64,
    GROUP,
    HAS_MORE,
    KIND,
    KIND_BITS,
    LENGTH,
    VARINT,
    varint,
)

_SMALL_BYTES: Final = 1 << 16  # what takes little, whatever it is
_MAX_FIELDS: Final = 1000  # of a message that is larger; a request as libraries write it has 30
_VARINTS: Final[Mapping[int, Any]] = {}
# The fields that take more than their bytes: inputs with their shape and contents, and outputs.
# Source: inference.proto of this package.
_FIELDS: Final[Mapping[int, Any]] = {
    5: {3: _VARINTS, 5: dict.fromkeys(range(1, 6), _VARINTS)},
    6: {},
}


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
            tag, at = varint(data, at)
            number, kind = tag >> KIND_BITS, tag & KIND
            if kind == VARINT:
                _, at = varint(data, at)
            elif kind == LENGTH:
                length, at = varint(data, at)
                if number in fields:
                    self._part(data[at : at + length], fields[number])
                at += length
            elif kind in (FIXED_32, FIXED_64):
                at += 4 if kind == FIXED_32 else 8
            elif kind not in (GROUP, END_OF_GROUP):
                return

    def _part(self, data: memoryview, fields: Mapping[int, Any]) -> None:
        if fields is not _VARINTS:
            self.message(data, fields)
            return
        self._values_left -= int(np.count_nonzero(np.frombuffer(data, np.uint8) < HAS_MORE))
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
